"""Text for language models: documents, splits, tokenizers, and batches that are functions of (seed, t)."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data import images as images
    from spectrain.data import processes as processes
    from spectrain.data import shards as shards
    from spectrain.data import streams as streams
    from spectrain.data import text as text
    from spectrain.data._images import read_images as read_images
    from spectrain.data._streams.mixture import Mixture as Mixture
    from spectrain.data._streams.packed import PackedStream as PackedStream
    from spectrain.data._streams.tokens import TokenStream as TokenStream
    from spectrain.data._streams.validation import validation_batches as validation_batches
    from spectrain.data._text.document import DataError as DataError
    from spectrain.data._text.pairs import read_pairs as read_pairs
    from spectrain.data._text.read import read_documents as read_documents
    from spectrain.data._text.split import split_documents as split_documents
    from spectrain.data._text.tokenizer import Tokenizer as Tokenizer
    from spectrain.data._text.tokenizer import load_tokenizer as load_tokenizer
    from spectrain.data._text.tokenizer_training import train_tokenizer as train_tokenizer

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "Images": "images.Images",
    "Generated": "processes.Generated",
    "WorkerError": "processes.WorkerError",
    "Workers": "processes.Workers",
    "generator": "streams.generator",
    "IndexStream": "streams.IndexStream",
    "compressed_bits_per_byte": "text.compressed_bits_per_byte",
    "Document": "text.Document",
    "iterate_documents": "text.iterate_documents",
    "Pair": "text.Pair",
    "split_pairs": "text.split_pairs",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.data._generator import generator as generator
    from spectrain.data._images import Images as Images
    from spectrain.data._processes.generated import Generated as Generated
    from spectrain.data._processes.workers import WorkerError as WorkerError
    from spectrain.data._processes.workers import Workers as Workers
    from spectrain.data._streams.index import IndexStream as IndexStream
    from spectrain.data._text.compression import compressed_bits_per_byte as compressed_bits_per_byte
    from spectrain.data._text.document import Document as Document
    from spectrain.data._text.pairs import Pair as Pair
    from spectrain.data._text.pairs import split_pairs as split_pairs
    from spectrain.data._text.read import iterate_documents as iterate_documents

__getattr__, __dir__ = door(__name__, moved=_MOVED)
