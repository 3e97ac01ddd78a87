"""What tests of the report share."""

import pytest

from awr_exp.report import images


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are written and not drawn, for tests of what a report says: drawing takes most of its time."""
    monkeypatch.setattr(images, "png", lambda panels: b"a picture")
