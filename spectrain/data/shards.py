"""Text larger than memory, tokenized once into files that are mapped."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._shards.encode import EncoderError as EncoderError
    from spectrain.data._shards.found import Found as Found
    from spectrain.data._shards.found import find as find
    from spectrain.data._shards.manifest import Prepared as Prepared
    from spectrain.data._shards.manifest import Shard as Shard
    from spectrain.data._shards.manifest import is_prepared as is_prepared
    from spectrain.data._shards.manifest import is_whole as is_whole
    from spectrain.data._shards.manifest import open_prepared as open_prepared
    from spectrain.data._shards.prepare import Asked as Asked
    from spectrain.data._shards.prepare import prepare as prepare
    from spectrain.data._shards.prepare import prepare_found as prepare_found
    from spectrain.data._text.token_file import fingerprint as fingerprint

__getattr__, __dir__ = door(__name__)
