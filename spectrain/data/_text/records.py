"""Files and objects of many texts: JSON lines, Parquet, datasets of Hugging Face; one document a row."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from spectrain.data._text.document import DataError, Flow
from spectrain.data._text.files import read_parts
from spectrain.data._text.json_line import list_names, parse, string
from spectrain.data._text.open import UnusableFileError, lines

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_NAME_IT = "name another with text_field= (on the command line --text-field)"


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by ``Dataset.save_to_disk``."""
    return all(os.path.isfile(folder / name) for name in ("dataset_info.json", "state.json"))


def flows_in(path: Path, name: str, *, text_field: str, pipe: bool = False) -> Iterator[Flow]:
    """The documents of one file, by its ending: a row each of JSON lines and Parquet, else the file as a whole.

    ``pipe``: it may be a pipe. A row is named ``NAME:NUMBER``, counted from 1. Rows whose text is empty are left out.
    """
    if path.name.endswith(JSON_LINES):
        rows = _json_texts(path, text_field, pipe=pipe)
    elif path.suffix == ".parquet":
        rows = _parquet_texts(path, text_field)
    else:
        yield Flow(name, read_parts(path, pipe=pipe))
        return
    found = False
    for number, text in rows:
        if text:
            found = True
            yield Flow(f"{name}:{number}", iter([text]))
    if not found:
        raise UnusableFileError("empty", f"{path} holds no text; name a file with text in it")


def flows_of(dataset: Any, *, name: str, text_field: str) -> Iterator[Flow]:
    """The rows of a Hugging Face dataset, map-style or streamed."""
    columns = dataset.column_names
    if isinstance(columns, dict):
        raise DataError(
            f"the dataset has the splits {', '.join(columns)}; give one of them: dataset[{next(iter(columns))!r}]"
        )
    if columns is not None and text_field not in columns:
        raise DataError(f"the dataset has no column {text_field!r} but {', '.join(columns)}; name it with text_field=")
    for number, row in enumerate(dataset, start=1):
        where = f"{name}, row {number}"
        text = string(row.get(text_field), text_field, where=where, names=row, advice=_NAME_IT)
        if text:
            yield Flow(f"{name}:{number}", iter([text]))


def load_saved(folder: Path) -> Any:
    """The dataset in a folder that ``save_to_disk`` wrote."""
    return _require("datasets", folder).load_from_disk(str(folder))


def _json_texts(path: Path, field: str, *, pipe: bool) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines(path, pipe=pipe), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse(line, where=where, holds="every line is an object with a text")
        yield number, string(row.get(field), field, where=where, names=row, advice=_NAME_IT)


def _parquet_texts(path: Path, field: str) -> Iterator[tuple[int, str]]:
    parquet = _require("pyarrow.parquet", path)
    if not os.path.isfile(path):  # its table is at its end, so a pipe will not do
        raise UnusableFileError("unreadable", f"{path} is no regular file; Parquet is read from one")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                names = list_names(file.schema_arrow.names)
                raise UnusableFileError("without the field", f"{path} has no column {field!r} but {names}; {_NAME_IT}")
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                for scalar in batch.column(0):
                    number += 1
                    where = f"{path}, row {number}"
                    yield number, string(scalar.as_py(), field, where=where, names=(field,), advice=_NAME_IT)
    except UnicodeDecodeError as error:
        raise UnusableFileError("not UTF-8", f"{path}, row {number} is not UTF-8: {error.reason}") from None
    except (OSError, importlib.import_module("pyarrow").ArrowException) as error:
        found = f"is damaged after row {number}" if number else "is not a Parquet file"
        raise UnusableFileError("damaged", f"{path} {found}: {error}") from None


def _require(module: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise DataError(
            f"{path} is read by the package {package}, which is not installed: pip install {package}"
        ) from None
