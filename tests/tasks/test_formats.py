"""SWAG, CoNLL-2003, CoNLL-U and SICK, read from small files in the official formats."""

import pytest

from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError
from bertjax.tasks.registry import open_task


def test_swag_joins_sent2_with_each_ending(tmp_path):
    head = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3"
    row = '7,v,1,"A, She","A sits, ""still"".",She,gold,stands.,"runs, then stops.",sings.,sleeps.'
    (tmp_path / "val.csv").write_text(f"{head},label\n{row},1\n")
    (tmp_path / "test.csv").write_text(f"{head}\n{row}\n")
    task = open_task("swag", str(tmp_path))
    [example] = task.read("dev")
    assert (example.id, example.text, example.label) == ("7", 'A sits, "still".', 1)
    assert example.choices == ("She stands.", "She runs, then stops.", "She sings.", "She sleeps.")
    assert task.choices == 4 and task.score([example] * 4, [1, 1, 1, 0]) == {"accuracy": 75.0}
    [unlabelled] = task.read("test")
    assert unlabelled.label is None and unlabelled.choices == example.choices
    (tmp_path / "val.csv").write_text(f"{head},label\n{row},4\n")
    with pytest.raises(UserError, match=r"val\.csv, row 2: label '4' is none of 0, 1, 2, 3"):
        task.read("dev")


CONLL = """-DOCSTART- -X- O O

EU NNP I-NP {0}ORG
rejects VBZ I-VP O
German JJ I-NP {0}MISC
call NN I-NP O

-DOCSTART- -X- -X- O

Peter NNP I-NP {0}PER
Blackburn NNP I-NP I-PER
York NNP I-NP B-PER
Reuters NNP I-NP {0}ORG
"""


def test_conll2003_is_read_in_iob1_and_iob2(tmp_path):
    """IOB1 has B- only between adjacent entities of one type; common copies are IOB2."""
    (tmp_path / "eng.testa").write_text(CONLL.format("I-"))
    (tmp_path / "iob2").mkdir()
    (tmp_path / "iob2/valid.txt").write_text(CONLL.format("B-"))
    task = open_task("conll2003/ner", str(tmp_path))
    for examples in (task.read("dev"), open_task("conll2003/ner", str(tmp_path / "iob2")).read("dev")):
        assert [example.words for example in examples] == [
            ("EU", "rejects", "German", "call"),
            ("Peter", "Blackburn", "York", "Reuters"),
        ]
        assert [[task.labels[label] for label in example.labels] for example in examples] == [
            ["B-ORG", "O", "B-MISC", "O"],
            ["B-PER", "I-PER", "B-PER", "B-ORG"],
        ]
    with pytest.raises(UserError, match="line 3: 2 columns instead of 4"):
        (tmp_path / "eng.testa").write_text("-DOCSTART- -X- O O\n\nEU I-ORG\n")
        task.read("dev")
    with pytest.raises(UserError, match="line 1: unknown label 'B-GPE'"):
        (tmp_path / "eng.testa").write_text("EU NNP I-NP B-GPE\n")
        task.read("dev")


def test_entities_score_as_conlleval_does(tmp_path):
    """An entity is right if its type and both ends are; an I- without a B- begins one."""
    (tmp_path / "valid.txt").write_text(CONLL.format("B-"))
    task = open_task("conll2003/ner", str(tmp_path))
    index = {label: number for number, label in enumerate(task.labels)}
    predictions = [
        [index[label] for label in ("I-ORG", "O", "B-MISC", "I-MISC")],
        [index[label] for label in ("B-PER", "I-PER", "I-PER", "O")],
    ]
    # Five entities, three predicted: ORG is right; MISC and PER are too long.
    expected = {"f1": 25.0, "precision": 100 / 3, "recall": 20.0, "accuracy": 50.0}
    assert task.score(task.read("dev"), predictions) == pytest.approx(expected)
    no_entities = [[0] * 4] * 2
    assert task.score(task.read("dev"), no_entities)["f1"] == 0


def test_conllu_skips_ranges_and_empty_nodes(tmp_path):
    rest = "_\t_\t_\t_\t_\t_"
    (tmp_path / "xx_a-ud-dev.conllu").write_text(
        "# sent_id = s-1\n# text = don't go\n"
        f"1-2\tdon't\t_\t_\t{rest}\n1\tdo\tdo\tAUX\t{rest}\n2\tn't\tnot\tPART\t{rest}\n"
        f"2.1\tyou\tyou\tPRON\t{rest}\n3\tgo on\tgo\tVERB\t{rest}\n\n\n# sent_id = s-2\n1\t!\t!\tPUNCT\t{rest}"
    )
    task = open_task("conllu/upos", str(tmp_path))
    first, second = task.read("dev")
    assert (first.id, second.id) == ("s-1", "s-2")
    assert first.words == ("do", "n't", "go on") and second.words == ("!",)
    assert [task.labels[label] for label in first.labels] == ["AUX", "PART", "VERB"]
    assert len(task.labels) == 17
    scores = task.score([first, second], [first.labels, (0,)])
    assert scores == {"accuracy": 75.0}, "the accuracy is over words, not sentences"
    assert task.dev == ("dev",)  # no test file
    (tmp_path / "xx_a-ud-test.conllu").write_text(f"1\t!\t!\tPUNCT\t{rest}\n")
    assert open_task("conllu/upos", str(tmp_path)).dev == ("dev", "test")
    # If the table names files, e.g. to train on dev, only these are used.
    named = open_task("conllu/upos", str(tmp_path), TableConfig(train="xx_a-ud-dev.conllu", dev="xx_a-ud-dev.conllu"))
    assert named.dev == ("dev",)
    with pytest.raises(UserError, match=r"no file for test; set table\.test"):
        named.read("test")
    assert open_task("conllu/upos", str(tmp_path), TableConfig(train="xx_a-ud-dev.conllu")).read("train") == [
        first,
        second,
    ]
    (tmp_path / "dev.conllu").write_text("1\tdo\n")
    with pytest.raises(UserError, match=r"dev\.conllu, line 1: 2 fields instead of 10"):
        open_task("conllu/upos", str(tmp_path), TableConfig(dev="dev.conllu")).read("dev")


def test_two_treebanks_in_a_folder_are_rejected(tmp_path):
    for name in ("en_ewt", "en_gum"):
        (tmp_path / f"{name}-ud-train.conllu").write_text("1\tgo" + "\t_" * 8 + "\n")
    with pytest.raises(UserError, match=r"several files match \*-ud-train\.conllu \(en_ewt-ud-train\.conllu, en_gum"):
        open_task("conllu/upos", str(tmp_path)).read("train")


def test_sick_has_a_number_and_a_class(tmp_path):
    head = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    (tmp_path / "SICK_trial.txt").write_text(head + "4\tone\ttwo\t3.6\tCONTRADICTION\n")
    [example] = open_task("sick/relatedness", str(tmp_path)).read("dev")
    assert (example.id, example.text, example.text_pair, example.label) == ("4", "one", "two", 3.6)
    task = open_task("sick/entailment", str(tmp_path))
    assert task.labels[task.read("dev")[0].label] == "CONTRADICTION"
    (tmp_path / "SICK_trial.txt").write_text(head + "4\tone\ttwo\tnan\tCONTRADICTION\n")
    with pytest.raises(UserError, match=r"SICK_trial\.txt, line 2: label 'nan' is not a finite number"):
        open_task("sick/relatedness", str(tmp_path)).read("dev")
