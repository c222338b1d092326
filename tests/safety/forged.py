"""Checkpoints of which one part was exchanged."""

import json
import struct


def with_metadata(path, folder, text):
    """A copy of the checkpoint with other text for its manifest."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["poolswap"] = text(header["__metadata__"]["poolswap"])
    encoded = json.dumps(header).encode()
    copy = folder / "forged.safetensors"
    copy.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + length :])
    return copy


def forged(*where, value):
    """Metadata with one value exchanged."""

    def change(text):
        document = place = json.loads(text)
        *path, last = where
        for key in path:
            place = place[key]
        place[last] = value
        return json.dumps(document)

    return change
