// Draws what comes over the socket: H.264 by WebCodecs, or JPEG where the browser has none of that.

const HEADER_BYTES = 16;
const MOST_UNDECODED = 8;

// Only pages of https and of this machine have WebCodecs, and not every browser was built with H.264.
export async function canDecode() {
  if (typeof VideoDecoder !== "function") return false;
  try {
    const { supported } = await VideoDecoder.isConfigSupported({ codec: "avc1.42c01f", optimizeForLatency: true });
    return supported === true;
  } catch {
    return false;
  }
}

// `shown({sequence})` is called when a picture is on the canvas, `wantKey()` when only a key frame helps.
export class Screen {
  constructor(canvas, shown, wantKey) {
    Object.assign(this, { canvas, shown, wantKey, context: canvas.getContext("2d", { alpha: false }) });
    this.forget();
  }

  forget() {
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
    this.codec = "";
    this.waiting = new Map(); // time of a picture -> the control that it answers
    this.newest = -1; // of the pictures decoded asynchronously
  }

  take(buffer) {
    const view = new DataView(buffer);
    if (buffer.byteLength <= HEADER_BYTES) return;
    const [kind, key] = [view.getUint8(0), view.getUint8(1) === 1];
    const [sequence, time] = [view.getUint32(4), Number(view.getBigUint64(8))];
    const data = new Uint8Array(buffer, HEADER_BYTES);
    if (kind === 1) this.takeJpeg(data, sequence);
    else this.takeUnit(data, key, sequence, time);
  }

  takeUnit(data, key, sequence, time) {
    const codec = key ? codecOf(data) : "";
    if (codec && (!this.decoder || codec !== this.codec)) this.open(codec);
    if (!this.decoder || (!key && this.decoder.decodeQueueSize > MOST_UNDECODED)) {
      if (this.decoder) this.forget();
      this.wantKey();
      return;
    }
    this.waiting.set(time, sequence);
    try {
      this.decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: time, data }));
    } catch {
      this.forget();
      this.wantKey();
    }
  }

  open(codec) {
    this.forget();
    const decoder = new VideoDecoder({
      output: (frame) => {
        this.draw(frame, frame.displayWidth, frame.displayHeight, this.waiting.get(frame.timestamp) ?? 0);
        for (const time of this.waiting.keys()) if (time <= frame.timestamp) this.waiting.delete(time);
        frame.close();
      },
      error: () => {
        if (this.decoder === decoder) this.forget();
        this.wantKey();
      },
    });
    decoder.configure({ codec, optimizeForLatency: true });
    [this.decoder, this.codec] = [decoder, codec];
  }

  async takeJpeg(data, sequence) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let picture;
    try {
      picture = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
    } catch {
      return;
    }
    if (turn > this.newest) {
      this.newest = turn;
      this.draw(picture, picture.width, picture.height, sequence);
    }
    picture.close();
  }

  draw(picture, width, height, sequence) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
    }
    this.context.drawImage(picture, 0, 0);
    this.shown({ sequence });
  }
}

// `avc1.PPCCLL`: profile, constraints and level stand behind the first byte of the sequence parameter set.
function codecOf(data) {
  for (let i = 0; i + 6 < data.length; i++) {
    if (data[i] === 0 && data[i + 1] === 0 && data[i + 2] === 1 && (data[i + 3] & 31) === 7) {
      const hex = (n) => n.toString(16).padStart(2, "0");
      return `avc1.${hex(data[i + 4])}${hex(data[i + 5])}${hex(data[i + 6])}`;
    }
  }
  return "";
}
