from bertjax.config import default_config
def get_config():
    return default_config()
