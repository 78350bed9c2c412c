"""Files and objects of many texts: JSON lines, Parquet, datasets of Hugging Face; one document a row."""

import gzip
import importlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from spectrain.data._document import DataError, Document
from spectrain.data._text_file import UnusableFileError, read_text

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by ``Dataset.save_to_disk``."""
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def documents_in(path: Path, name: str, *, text_field: str) -> Iterator[Document]:
    """The documents of one file, by its ending: a row each of JSON lines and Parquet, else the file as a whole.

    A row is named ``NAME:NUMBER``, counted from 1. Rows whose text is empty are left out.
    """
    if path.name.endswith(JSON_LINES):
        rows = _json_texts(path, text_field)
    elif path.suffix == ".parquet":
        rows = _parquet_texts(path, text_field)
    else:
        yield Document(name=name, text=read_text(path))
        return
    found = False
    for number, text in rows:
        if text:
            found = True
            yield Document(name=f"{name}:{number}", text=text)
    if not found:
        raise UnusableFileError("empty", f"{path} holds no text; name a file with text in it")


def documents_of(dataset: Any, *, name: str, text_field: str) -> Iterator[Document]:
    """The rows of a Hugging Face dataset, map-style or streamed."""
    columns = dataset.column_names
    if isinstance(columns, dict):
        raise DataError(
            f"the dataset has the splits {', '.join(columns)}; give one of them: dataset[{next(iter(columns))!r}]"
        )
    if columns is not None and text_field not in columns:
        raise DataError(f"the dataset has no column {text_field!r} but {', '.join(columns)}; name it with text_field=")
    for number, row in enumerate(dataset, start=1):
        text = _checked(row.get(text_field), text_field, where=f"{name}, row {number}", names=row)
        if text:
            yield Document(name=f"{name}:{number}", text=text)


def saved_dataset(folder: Path) -> Any:
    """The dataset in a folder that ``save_to_disk`` wrote."""
    return _needed("datasets", folder).load_from_disk(str(folder))


def _json_texts(path: Path, field: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except UnicodeDecodeError as error:
            raise UnusableFileError(
                "not UTF-8", f"{where} is not UTF-8: {error.reason} at byte {error.start}"
            ) from None
        except ValueError as error:
            raise UnusableFileError("not JSON", f"{where} is not JSON: {error}; every line is an object") from None
        if not isinstance(row, dict):
            raise UnusableFileError(
                "not JSON", f"{where} holds a {type(row).__name__}; a line is an object with a text"
            )
        yield number, _checked(row.get(field), field, where=where, names=row)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            yield from file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnusableFileError("damaged", f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise UnusableFileError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error


def _parquet_texts(path: Path, field: str) -> Iterator[tuple[int, str]]:
    parquet = _needed("pyarrow.parquet", path)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, importlib.import_module("pyarrow").ArrowException) as error:
        raise UnusableFileError("damaged", f"{path} is not a Parquet file: {error}") from None
    with file:
        if field not in file.schema_arrow.names:
            names = ", ".join(file.schema_arrow.names)
            raise UnusableFileError("without the field", f"{path} has no column {field!r} but {names}; {_NAME_IT}")
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield number, _checked(value, field, where=f"{path}, row {number}", names=(field,))


_NAME_IT = "name another with text_field= (on the command line --text-field)"


def _checked(value: object, field: str, *, where: str, names: Iterable[str]) -> str:
    if not isinstance(value, str):
        got = f"{value!r:.60}" if field in names else f"only {', '.join(map(repr, names)) or 'nothing'}"
        raise UnusableFileError("without the field", f"{where}: {field!r} must be a string, got {got}; {_NAME_IT}")
    return value


def _needed(module: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise DataError(
            f"{path} is read by the package {package}, which is not installed: pip install {package}"
        ) from None
