"""Files to documents and pairs, splits of them, and tokenizers."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._text.compression import compressed_bits_per_byte as compressed_bits_per_byte
    from spectrain.data._text.document import DataError as DataError
    from spectrain.data._text.document import Document as Document
    from spectrain.data._text.pairs import Pair as Pair
    from spectrain.data._text.pairs import read_pairs as read_pairs
    from spectrain.data._text.pairs import split_pairs as split_pairs
    from spectrain.data._text.read import iterate_documents as iterate_documents
    from spectrain.data._text.read import read_documents as read_documents
    from spectrain.data._text.split import split_documents as split_documents
    from spectrain.data._text.tokenizer import Tokenizer as Tokenizer
    from spectrain.data._text.tokenizer import load_tokenizer as load_tokenizer
    from spectrain.data._text.tokenizer_training import train_tokenizer as train_tokenizer

__getattr__, __dir__ = door(__name__)
