"""What huggingface.co's client raises, as one line with the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from src.common.errors import UserError


class UnreachableError(UserError):
    """The hub does not answer, or is not to be asked."""


@contextmanager
def hub_errors(repository: str, revision: str = "main") -> Iterator[None]:
    """Turn what the client raises for `repository` into a UserError.

    Raises:
        UnreachableError: no network, a hub that is down, HF_HUB_OFFLINE.
        UserError: gated, unknown, no such revision, or otherwise refused.
    """
    page = f"https://huggingface.co/{repository}"
    try:
        yield
    except GatedRepoError:
        raise UserError(f"{repository} is gated: ask for access on {page} (accept the licence, and "
                        "wait where its owners must agree), then `hf auth login` with that account "
                        "and run the same command again") from None
    except RepositoryNotFoundError:
        raise UserError(f"{repository}: no such model on the hub, or one that your login does not "
                        "see: correct the name, or `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{repository}: no revision {revision}: correct `revision`; "
                        f"{page}/commits/main lists them") from None
    except OfflineModeIsEnabled:
        raise UnreachableError(f"{repository}: HF_HUB_OFFLINE is set, so the hub is not asked: "
                               "unset it") from None
    except Exception as error:
        if not _is_of_the_connection(error):
            raise
        reason = next(filter(None, str(error).split("\n")), type(error).__name__)
        if _is_refusal(error):
            raise UserError(f"{repository}: the hub refused ({reason}): look at `hf auth whoami`, "
                            "and `hf auth login` with a token that may do this") from None
        raise UnreachableError(f"{repository}: the hub could not be reached ({reason}): check the "
                               "connection and run the same command again; what has arrived is "
                               "kept") from None


def _is_refusal(error: Exception) -> bool:
    """Whether the hub understood and will say the same again: 4xx, but not `too many requests`."""
    return (isinstance(error, HfHubHTTPError) and error.response.status_code < 500
            and error.response.status_code not in (408, 429))


def _is_of_the_connection(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is None:  # fewer bytes than were announced
        return True
    # the HTTP library under the client changes with its releases: told by its name
    return type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
