"""Publishes an exported folder on the Hugging Face Hub; by default only a dry run.

Only files that others need are uploaded; `result.json`, which contains local paths, is not. The
model card is completed with measured results. Imports no torch.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attar.artifacts import CARD_FILE, disk_errors_explained
from attar.errors import ResourceError, UsageError
from attar.export.measured_card import evaluations_of, measured_card
from attar.extras import require
from attar.models.deployed.runtimes import Deployment
from attar.models.sources.references import HUB_ID
from attar.special_tokens import DEPLOY_FILE
from attar.untrusted import has_entry

PAPERS = ("predict.py", "parity.json", "fusion_audit.json")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""A license identifier of the hub: apache-2.0, mit, cc-by-4.0, other."""
UNSAFE_ANSWERS = (401, 403)


@dataclass(frozen=True)
class Push:
    """What was uploaded, or would be."""

    repo: str | None
    """owner/name; None: not given."""
    is_private: bool
    files: Mapping[str, int]
    """Name → bytes."""
    card: str
    missing: tuple[str, ...]
    """Information that is missing in the card."""
    url: str | None = None
    """Address of the repository; None: a dry run."""

    def as_json(self) -> dict[str, Any]:
        return {
            "repo": self.repo,
            "private": self.is_private,
            "files": dict(self.files),
            "missing": list(self.missing),
            "url": self.url,
        }

    def text(self) -> str:
        """Text output: what is uploaded where, and how to continue."""
        seen = "private" if self.is_private else "public"
        lines = [f"{name:<28} {size / 1024:12,.1f} KiB" for name, size in self.files.items()]
        if self.url is not None:
            return "\n".join([*lines, f"uploaded to {self.url} ({seen})"])
        return "\n".join(
            [
                f"{CARD_FILE}:",
                *(f"  {line}".rstrip() for line in self.card.splitlines()),
                "",
                *lines,
                "",
                *(f"missing: {what}" for what in self.missing),
                f"dry run: nothing was uploaded; to upload it to a {seen} repository, add "
                + ("--upload" if self.repo else "--repo owner/name --upload"),
            ]
        )


def push(
    folder: Path,
    repo: str | None = None,
    *,
    license: str | None = None,
    is_private: bool = True,
    is_upload: bool = False,
) -> Push:
    """Show what publishing a folder would upload, or upload it.

    Raises:
        ArtifactError: the folder is not an exported model, or is damaged.
        UsageError: the hub does not accept the name or the license, or write access is denied.
        ResourceError: the hub cannot be reached.
    """
    if repo is None and is_upload:
        raise UsageError("an upload needs a repository; name it with --repo owner/name")
    if repo is not None and (not HUB_ID.fullmatch(repo) or "/" not in repo):
        raise UsageError(f"--repo must be owner/name, as on the hub; got {repo!r}")
    if license is not None and not LICENSE.fullmatch(license):
        raise UsageError(
            f"--license must be an identifier of the hub such as apache-2.0, mit or other; "
            f"got {license!r}"
        )
    deployment = Deployment.read(folder)
    deployment.check_files(folder)
    names = [*deployment.files, DEPLOY_FILE, *(n for n in PAPERS if has_entry(folder / n))]
    card = measured_card(folder, license)
    sizes = {name: (folder / name).stat().st_size for name in names}
    planned = Push(
        repo,
        is_private,
        sizes | {CARD_FILE: len(card.encode())},
        card,
        tuple(_missing(folder, license)),
    )
    if repo is None or not is_upload:
        return planned
    with TemporaryDirectory(prefix="attar-push-") as scratch:
        with disk_errors_explained(Path(scratch)):
            for name in names:
                shutil.copyfile(folder / name, Path(scratch) / name)
            (Path(scratch) / CARD_FILE).write_text(card, encoding="utf-8")
        url = _uploaded(Path(scratch), repo, is_private)
    return Push(repo, is_private, planned.files, card, planned.missing, url)


def _missing(folder: Path, license: str | None) -> list[str]:
    missing: list[str] = []
    if license is None:
        missing.append("a license; state it with --license, such as --license apache-2.0")
    if not evaluations_of(folder):
        missing.append(
            "measured quality and latency; run an evaluate step that names this export in the "
            "same recipe"
        )
    return missing


def _uploaded(folder: Path, repo: str, is_private: bool) -> str:
    """Upload all files of a folder in one commit; returns the address of the repository."""
    hub: Any = require("huggingface_hub", "hub")
    errors: Any = require("huggingface_hub.errors", "hub")
    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of the HTTP library in use
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="attar")
    try:
        made = api.create_repo(repo, private=is_private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload with attar")
    except errors.LocalTokenNotFoundError as error:
        raise UsageError(_LOG_IN) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in UNSAFE_ANSWERS:
            raise UsageError(f"the hub refused to write to {repo} ({status}); {_LOG_IN}") from error
        raise ResourceError(f"the hub answered {status} for {repo}: {error}; try again") from error
    except (OSError, http_error) as error:  # offline mode raises a ConnectionError
        raise ResourceError(f"the hub cannot be reached ({error}); try again") from error
    return str(made)


_LOG_IN = (
    "log in with a token that has write access: hf auth login, or the environment variable HF_TOKEN"
)
