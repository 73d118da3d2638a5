// The page starts: its settings and the clip that was exported with it, or that the address names (?video=clip.mp4).
import { VideoSource } from "./frame_source.js";
import { OnnxNetwork, fetchBytes } from "./network.js";
import { Page } from "./page.js";
import { OnnxVideoPredictor } from "./video_predictor.js";

const folder = new URL(".", import.meta.url);
const page = new Page();
await page.attempt(start);

async function start() {
  if (!window.isSecureContext || typeof VideoFrame === "undefined") {
    throw new Error("this page needs a browser with WebCodecs, and an address that is https or http://127.0.0.1");
  }
  const settings = JSON.parse(new TextDecoder().decode(await fetchBytes(new URL("page.json", folder))));
  page.colours = settings.palette;
  await page.attempt(() => openClip(settings.clip));
  const network = await OnnxNetwork.load(folder, (what) => page.say(`loading ${what} …`));
  page.setPredictor(new OnnxVideoPredictor(network));
}

async function openClip(clip) {
  const name = new URLSearchParams(location.search).get("video") ?? clip;
  if (!name) return;
  const address = new URL(name, folder);
  if (address.origin !== location.origin) throw new Error(`${name}: expected a video from this page's own server`);
  await page.open(async () => VideoSource.open(new Blob([await fetchBytes(address)]), name));
}
