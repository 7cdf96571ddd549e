"""Test image loaders on scikit-learn's digits and on small generated files."""

import gc

import jax.numpy as jnp
import numpy as np
import pytest

from jeff.fairness import images


def test_colour_betrays_the_label_in_training_only(key):
    parts = images.coloured_digits(key=key, correlation=0.9)
    assert sum(len(part.label) for part in parts) == 1797
    agree = [float(jnp.mean(part.label == part.group)) for part in parts]
    assert agree[0] == pytest.approx(0.9, abs=0.05)
    assert agree[2] == pytest.approx(0.5, abs=0.1)
    for part in parts:
        lit = part.inputs.sum(axis=(1, 2))
        np.testing.assert_array_equal(lit.argmax(1), part.group)
        assert part.inputs.min() == 0
        assert part.inputs.max() == 1
        assert np.all(np.asarray(lit).min(1) == 0)


def test_correlation_out_of_range(key):
    with pytest.raises(ValueError, match=r"correlation: expected 0.5 to 1, got 0.3"):
        images.coloured_digits(key=key, correlation=0.3)


@pytest.fixture
def picture():
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")
    return image.fromarray(np.full((20, 10, 3), 51, np.uint8))


def test_rows_with_images(picture):
    rows = [{"image": picture, "Smiling": s, "Male": m} for s, m in [(1, 0), (0, 1)]]
    found = images.from_images(
        rows, image="image", label=("Smiling", 1), group=("Male", 1), groups=("f", "m")
    )
    assert found.inputs.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(found.inputs, 0.2, atol=1e-6)
    np.testing.assert_array_equal(found.label, [1, 0])
    np.testing.assert_array_equal(found.group, [0, 1])
    with pytest.raises(ValueError, match=r"row 0: expected 'Young', got \['Male'"):
        images.from_images(
            rows,
            image="image",
            label=("Young", 1),
            group=("Male", 1),
            groups=("f", "m"),
        )
    with pytest.raises(ValueError, match="at least one row"):
        images.from_images(
            [], image="image", label=("a", 1), group=("b", 1), groups=("f", "m")
        )


def test_utkface_from_file_names(picture, tmp_path):
    for name in ["20_0_0_2017.jpg", "60_1_3_2017.jpg", "61_1_20170109.jpg"]:
        picture.save(tmp_path / name)
    found = images.utkface(tmp_path, size=16)
    assert found.inputs.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(found.label, [0, 1])
    np.testing.assert_array_equal(found.group, [1, 0])
    with pytest.raises(FileNotFoundError, match="extract the UTKFace archive"):
        images.utkface(tmp_path / "nowhere")


# `datasets` leaves the metadata file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_celeba_from_a_local_folder(picture, tmp_path):
    pytest.importorskip("datasets", reason="datasets is an optional extra")
    folder = tmp_path / "train"
    folder.mkdir()
    lines = ["file_name,Smiling,Male"]
    for number in range(6):
        picture.save(folder / f"{number}.png")
        lines.append(f"{number}.png,{bool(number % 2)},{number < 2}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    found = images.celeba(source=tmp_path, part="train", size=8)
    assert found.inputs.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(found.label, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(found.group, [1, 1, 0, 0, 0, 0])
    gc.collect()
