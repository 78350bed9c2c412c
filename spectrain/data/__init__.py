"""Text for language models: documents, splits, tokenizers, and batches that are functions of (seed, t)."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._compression import compressed_bits_per_byte as compressed_bits_per_byte
    from spectrain.data._document import DataError as DataError
    from spectrain.data._document import Document as Document
    from spectrain.data._generated import Generated as Generated
    from spectrain.data._generator import generator as generator
    from spectrain.data._images import Images as Images
    from spectrain.data._images import read_images as read_images
    from spectrain.data._index_stream import IndexStream as IndexStream
    from spectrain.data._mixture import Mixture as Mixture
    from spectrain.data._packed import PackedStream as PackedStream
    from spectrain.data._pairs import Pair as Pair
    from spectrain.data._pairs import read_pairs as read_pairs
    from spectrain.data._pairs import split_pairs as split_pairs
    from spectrain.data._read import iterate_documents as iterate_documents
    from spectrain.data._read import read_documents as read_documents
    from spectrain.data._split import split_documents as split_documents
    from spectrain.data._stream import TokenStream as TokenStream
    from spectrain.data._tokenizer import Tokenizer as Tokenizer
    from spectrain.data._tokenizer import load_tokenizer as load_tokenizer
    from spectrain.data._tokenizer_training import train_tokenizer as train_tokenizer
    from spectrain.data._validation import validation_batches as validation_batches
    from spectrain.data._workers import WorkerError as WorkerError
    from spectrain.data._workers import Workers as Workers

__getattr__, __dir__ = door(
    __name__,
    {
        "compressed_bits_per_byte": "_compression",
        "DataError": "_document",
        "Document": "_document",
        "Images": "_images",
        "IndexStream": "_index_stream",
        "Generated": "_generated",
        "generator": "_generator",
        "Mixture": "_mixture",
        "PackedStream": "_packed",
        "Pair": "_pairs",
        "iterate_documents": "_read",
        "read_documents": "_read",
        "read_images": "_images",
        "read_pairs": "_pairs",
        "split_pairs": "_pairs",
        "split_documents": "_split",
        "TokenStream": "_stream",
        "Tokenizer": "_tokenizer",
        "load_tokenizer": "_tokenizer",
        "train_tokenizer": "_tokenizer_training",
        "WorkerError": "_workers",
        "Workers": "_workers",
        "validation_batches": "_validation",
    },
)
