"""Whether known hidden states are read, or computed again because that is faster.

Of a token, one thread of the host gathers 4 or 2 bytes a hidden dimension from a mapped file and
copies them to where a GPU can take them from; the layers take 2 operations a weight:

    bytes / READ   against   2 * weights / COMPUTED

A CPU always reads. On CUDA it depends on how many layers lie below, and how wide they are: what 14
of Llama-3.2-1B's make is read, what 28 of SmolLM2-135M's make is computed.
"""

READ = 1.5e9
"""Bytes a second from a file that is in memory; reckoned, for a host that has a core to spare."""
COMPUTED = 2.5e14
"""Operations a second in a forward, reckoned: between an A100's 1.9e14 and an H100's 4.4e14, so
that neither takes more than about twice the time of the better choice."""


def is_read(device: str, weights: int, token_bytes: int) -> bool:
    """Whether reading what layers of so many weights make of a token takes less time there."""
    return device == "cpu" or token_bytes / READ < 2 * weights / COMPUTED
