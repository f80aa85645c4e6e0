"""Pictures and videos by PyAV (FFmpeg)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av

from worldrt.engine.errors import InputError
from worldrt.runtime.sources import _webp
from worldrt.runtime.sources._heads import Head, head_of
from worldrt.runtime.sources._pixels import Frame, Turn, rgb
from worldrt.runtime.sources.base import MAX_PIXELS, Source, check_pixels, stacked, unreadable

# Containers with an index of key frames, and codecs whose pictures need nothing from before one.
INDEXED = ("mov", "matroska")
FROM_KEY_FRAMES = frozenset(
    ("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mjpeg", "prores", "dnxhd", "ffv1")
)
HEIF = frozenset(("avif", "avis", "heic", "heis", "heix", "hevc", "mif1", "msf1"))  # brands of ISO/IEC 23008-12
LIMIT = {"max_pixels": str(MAX_PIXELS)}
ALONE = {"protocol_whitelist": "none"}  # no other file is opened, and nothing in a network
ATTACHED_PIC = 0x0400  # AV_DISPOSITION_


def check() -> None:
    """PyAV is part of the base install."""


def open_source(path: Path) -> Source:
    """By FFmpeg."""
    return MediaSource(path)


class MediaSource(Source):
    """A picture or video by FFmpeg."""

    def frames(self) -> Iterator[Frame]:
        with opened(self.path) as media:
            if media.head.animated_webp:
                yield from _webp.frames_of(self.path)
                return
            for frame in media.decoded():
                yield media.rgb(frame)

    def last(self, count: int) -> Frame:
        with opened(self.path) as media:
            if media.head.animated_webp:
                return stacked(self.path, deque(_webp.frames_of(self.path), count), count)
            tail = media.tail(count) if media.seekable else None
            if tail is not None:
                return stacked(self.path, [media.rgb(frame) for frame in tail], count)
        with opened(self.path) as media:
            return stacked(self.path, [media.rgb(frame) for frame in deque(media.decoded(), count)], count)


@dataclass(frozen=True)
class Media:
    """An opened file and its stream of pictures."""

    path: Path
    container: Any
    stream: Any
    head: Head

    @property
    def still(self) -> bool:
        """Whether FFmpeg took it for one picture."""
        return str(self.container.format.name).endswith(("_pipe", "image2"))

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, whichever decoder reads it."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def indexed(self) -> bool:
        return any(name in INDEXED for name in self.container.format.name.split(","))

    @property
    def seekable(self) -> bool:
        return self.indexed and self.codec in FROM_KEY_FRAMES

    def decoded(self) -> Iterator[Any]:
        """FFmpeg's frames from where the file was opened. Of a picture it is one, whatever else its file holds: a
        phone's JPEG may have a gain map or a film behind it."""
        for packet in self.packets():
            for frame in packet.decode():
                yield frame
                if self.still:
                    return

    def packets(self) -> Iterator[Any]:
        """Raises `InputError` at one that is not whole. (In a transport stream that is a gap, and decoding goes on.)"""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError as error:  # of PyAV
                raise unreadable(self.path, "a stream begins in the middle of it") from error
            if packet is None:
                return
            if packet.is_corrupt and self.indexed:
                raise unreadable(self.path, "it is damaged, or ends before its end")
            yield packet

    def tail(self, count: int) -> deque[Any] | None:
        """The last `count` frames, decoded from a key frame near the end; None where the index does not help.

        From an open group of pictures, frames that are shown before its key frame may need those before it, and are
        not counted. Each further try goes back twice as far as the one before.
        """
        length = self.stream.duration
        if length is None and self.container.duration is not None:
            length = round(self.container.duration / av.time_base / self.stream.time_base)
        target, before = (self.stream.start_time or 0) + (length or 0), None
        end = target
        while length:
            self.container.seek(target, stream=self.stream)
            key, kept = None, deque[Any](maxlen=count)
            for packet in self.packets():
                key = packet.pts if key is None else key
                if key is None:
                    return None
                kept.extend(frame for frame in packet.decode() if frame.pts is not None and frame.pts >= key)
            if key is None or (before is not None and key >= before):
                return None
            if len(kept) == count:
                return kept
            before, target = key, key - max(1, end - key)
        return None

    def rgb(self, frame: Any) -> Frame:
        """uint8 RGB (h, w, 3), upright. Raises `InputError` for a frame that the decoder had to make up in part."""
        if frame.is_corrupt:
            raise unreadable(self.path, "it is damaged: a frame could not be decoded whole")
        turn = Turn.of_exif(self.head.orientation) if self.still and self.head.width else Turn.of_frame(frame)
        return turn(rgb(frame))


@contextmanager
def opened(path: Path) -> Iterator[Media]:
    """Open a file for reading pictures. Errors of FFmpeg in the block become `InputError`.

    The file is given to FFmpeg as bytes: its name is no pattern or address, and what it says of other files or of
    places in a network, as a playlist does, is not followed.
    """
    try:
        with path.open("rb") as file:
            head = head_of(file)
            check_pixels(path, head.width, head.height)
            if head.length_bytes > file.seek(0, 2):
                raise unreadable(path, f"it ends before its end: {head.length_bytes} bytes were written")
            file.seek(0)
            nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
            with av.open(nameless, options=LIMIT, container_options=ALONE, metadata_errors="replace") as container:
                yield _media(path, container, head)
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error.strerror or error) from error


def _media(path: Path, container: Any, head: Head) -> Media:
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        sound = "only sound" if container.streams.audio else "no picture"
        raise InputError(f"{path}: it holds {sound}; give a picture or a video")
    stream = streams[0]
    if len(streams) > 1 and str(container.metadata.get("major_brand", "")).strip() in HEIF:
        raise unreadable(path, "a HEIC or AVIF picture in tiles, or with transparency, is not put together; give a PNG")
    if stream.codec_context is None:
        raise unreadable(path, "this build of FFmpeg has no decoder for it")
    check_pixels(path, stream.codec_context.width, stream.codec_context.height)
    media = Media(path, container, stream, head)
    # half a JPEG is an error: other decoders say so by themselves, and a film with a damaged frame may still end well
    stream.codec_context.options = LIMIT | ({"err_detect": "explode"} if media.still and media.codec == "mjpeg" else {})
    stream.thread_type = "AUTO"
    return media


def _is_cover(stream: Any) -> bool:
    """Whether it is the cover of a piece of music."""
    return bool(int(stream.disposition) & ATTACHED_PIC)
