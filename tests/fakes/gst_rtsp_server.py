"""GStreamer's RTSP server as a process: what is published at /in is played at /out. Run by the system's Python, for
which python3-gi and gir1.2-gst-rtsp-server-1.0 are packaged: `python3 gst_rtsp_server.py PORT`."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
IN = f"( rtph264depay name=depay0 ! {CAPS} ! appsink name=sink emit-signals=true sync=false )"
OUT = (
    f"( appsrc name=src is-live=true format=time do-timestamp=true caps={CAPS} "
    "! rtph264pay name=pay0 pt=96 config-interval=0 )"
)


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
    server.get_thread_pool().set_max_threads(16)  # with one, a player's DESCRIBE waits for the publisher's thread
    sources: list[Gst.Element] = []
    began: list[Gst.Element] = []  # those that have had a key

    def passed_on(sink: Gst.Element) -> Gst.FlowReturn:
        data = sink.emit("pull-sample").get_buffer()
        if not data.has_flags(Gst.BufferFlags.DELTA_UNIT):
            began[:] = sources
        copy = Gst.Buffer.new_wrapped(data.extract_dup(0, data.get_size()))
        for source in tuple(began):
            source.emit("push-buffer", copy)
        return Gst.FlowReturn.OK

    def publishes(_: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        media.get_element().get_by_name("sink").connect("new-sample", passed_on)

    def plays(_: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("src")
        sources.append(source)
        media.connect("unprepared", lambda _: gone(source))

    def gone(source: Gst.Element) -> None:
        sources.remove(source)
        began[:] = [other for other in began if other is not source]

    mounts = server.get_mount_points()
    for path, launch, mode, configure in (
        ("/in", IN, GstRtspServer.RTSPTransportMode.RECORD, publishes),
        ("/out", OUT, GstRtspServer.RTSPTransportMode.PLAY, plays),
    ):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch)
        factory.set_transport_mode(mode)
        factory.set_latency(0)
        factory.set_shared(mode == GstRtspServer.RTSPTransportMode.RECORD)  # one that ends is refused to who comes
        factory.connect("media-configure", configure)
        mounts.add_factory(path, factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
