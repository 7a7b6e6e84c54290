import subprocess
import sys

# Runs in a separate process: TensorFlow is slow to import and would stay loaded for the other tests. The value of each
# text feature is its name, which shows which features are read.
PROGRAM = """
import tensorflow_datasets as tfds
from bertjax import host_tensorflow
from bertjax.errors import UserError
from bertjax.tasks import glue
from bertjax.tasks.registry import open_task

tf = host_tensorflow.load()
RECORDS = {
    "squad": [{"id": "7", "context": "In S\\u00e3o Paulo.", "question": "Where?",
               "answers": {"text": ["S\\u00e3o Paulo"], "answer_start": [3]}}],
    "conll2003": [{"tokens": ["In", "New", "York"], "ner": [0, 5, 6]}],
}
splits = set()

def mock_dataset(builder, split, **kwargs):
    splits.add(f"{builder.info.full_name.split('/')[1]} {split}" if builder.name == "glue" else split)
    features = builder.info.features
    generated = [{key: {"idx": index, "label": 1}.get(key, key) for key in features} for index in (1, 0)]  # shuffled
    records = RECORDS.get(builder.name, generated)
    first, *others = map(tf.data.Dataset.from_tensors, records)
    return first.concatenate(others[0]) if others else first

with tfds.testing.mock_data(as_dataset_fn=mock_dataset):
    for name in glue.TASKS:
        task = open_task(f"glue/{name}", "tfds")
        for split in (*task.dev[:1], *task.test[-1:]):
            first, second = task.read(split)
            print(name, first.id, second.id, first.text, first.text_pair, first.label)
    print(*sorted(split for split in splits if split.startswith("mnli")))
    [_, reordered] = open_task("glue/rte", "tfds", labels=["not_entailment", "entailment"]).read("train")
    assert reordered.label == 0
    for version in ("v1.1", "v2.0"):
        [example] = open_task(f"squad/{version}", "tfds").read("train")
        assert (example.id, example.question, example.answers) == ("7", "Where?", ("S\\u00e3o Paulo",)), example
        assert example.passage[example.starts[0]:] == "S\\u00e3o Paulo.", example
    splits.clear()
    task = open_task("conll2003/ner", "tfds")
    [example] = task.read("dev")
    assert example.words == ("In", "New", "York") and splits == {"dev"}
    assert [task.labels[label] for label in example.labels] == ["O", "B-LOC", "I-LOC"]
for name in ("swag", "sick/entailment", "conllu/upos"):
    try:
        open_task(name, "tfds").read("dev")
    except UserError as error:
        print(error)
"""


def test_tasks_are_read_from_tfds():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *read, mnli, sick, swag, conllu = result.stdout.splitlines()
    names = {
        "cola": "sentence None",
        "sst2": "sentence None",
        "mrpc": "sentence1 sentence2",
        "stsb": "sentence1 sentence2",
        "qqp": "question1 question2",
        "mnli": "premise hypothesis",
        "qnli": "question sentence",
        "rte": "sentence1 sentence2",
        "wnli": "sentence1 sentence2",
    }
    expected = [f"{name} 0 1 {texts} {label}" for name, texts in names.items() for label in ("1", "None")]
    expected = [line.replace("2 1", "2 1.0") if line.startswith("stsb") else line for line in expected]
    assert read == [*expected, "ax 0 1 premise hypothesis None"]
    assert mnli == "mnli test_mismatched mnli validation_matched"
    for message in (sick, swag, conllu):
        assert message == "tfds: bertjax does not read this task from TFDS; set data_dir to a folder with its files"
