"use strict";
// Slides of a study in dicom-microscopy-viewer: levels as the tiles they are, the map (SEG) and the marks (ANN) over them.

const study = document.body.dataset.study;
const api = `/api/v1/studies/${study}`;
const wado = `/dicom-web/studies/${study}`;
const library = window.dicomMicroscopyViewer;
window.PUBLIC_LIB_URL = "/viewer/dicom-microscopy-viewer/"; // where the viewer finds its decoders
const byId = (id) => document.getElementById(id);
const FINAL = ["measured", "not_processable", "not_applicable", "failed", "cancelled", "superseded"];
const LOOK_MS = 2000;
const RAW = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1';
const STORED = ['multipart/related; type="image/jpeg"; transfer-syntax=*', 'multipart/related; type="image/jp2"; transfer-syntax=*', RAW].join(", ");
// The viewer's palette begins dark: without a floor a score of one in 255 would look like a finding.
const FLOOR = 26; // of 255
const maps = new Set(); // series of segmentations

let shown = { series: "", viewer: null, timer: 0, state: "" };

async function json(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json, application/dicom+json" } });
  if (!answer.ok) throw new Error(`${answer.status} ${url}`);
  return answer.status === 204 ? [] : answer.json();
}

// --- the client that the viewer asks for pixels: frames as they are stored -------------------------------------------

function find(bytes, wanted, from) {
  outer: for (let at = from; at <= bytes.length - wanted.length; at += 1) {
    for (let k = 0; k < wanted.length; k += 1) if (bytes[at + k] !== wanted[k]) continue outer;
    return at;
  }
  return -1;
}

function parts(buffer, contentType) {
  const boundary = /boundary="?([^";]+)"?/.exec(contentType);
  if (!boundary) return [buffer];
  const bytes = new Uint8Array(buffer);
  const encode = (text) => new TextEncoder().encode(text);
  const [mark, blank] = [encode(`--${boundary[1]}`), encode("\r\n\r\n")];
  const found = [];
  let at = find(bytes, mark, 0);
  while (at >= 0) {
    const start = find(bytes, blank, at);
    if (start < 0) break;
    const length = /content-length: *(\d+)/i.exec(new TextDecoder().decode(bytes.subarray(at, start)));
    const next = find(bytes, mark, start + blank.length + (length ? Number(length[1]) : 0));
    const end = length ? start + blank.length + Number(length[1]) : next - 2;
    found.push(buffer.slice(start + blank.length, end));
    at = next;
  }
  return found;
}

async function multipart(url, accept) {
  const answer = await fetch(url, { headers: { Accept: accept } });
  if (!answer.ok) throw new Error(`${answer.status} ${url}`);
  return parts(await answer.arrayBuffer(), answer.headers.get("content-type") || "");
}

const client = {
  wadoURL: "/dicom-web",
  retrieveInstanceFrames: async ({ seriesInstanceUID, sopInstanceUID, frameNumbers }) => {
    const url = `${wado}/series/${seriesInstanceUID}/instances/${sopInstanceUID}/frames/${frameNumbers.join(",")}`;
    if (!maps.has(seriesInstanceUID)) return multipart(url, STORED);
    const frames = await multipart(url, RAW);
    for (const frame of frames) {
      const scores = new Uint8Array(frame);
      for (let at = 0; at < scores.length; at += 1) if (scores[at] < FLOOR) scores[at] = 0;
    }
    return frames;
  },
  // Marks and colour profiles lie beside the metadata, at the address that the metadata name.
  retrieveBulkData: ({ BulkDataURI }) =>
    multipart(BulkDataURI, 'multipart/related; type="application/octet-stream"; transfer-syntax=*'),
};

// --- the slide --------------------------------------------------------------------------------------------------------

const value = (item, tag) => item[tag]?.Value?.[0];

async function open(series) {
  clearTimeout(shown.timer);
  shown.viewer?.cleanup?.();
  shown = { series, viewer: null, timer: 0, state: "" };
  byId("slide").replaceChildren();
  byId("slide").classList.remove("picture");
  byId("slide").dataset.tiles = "0";
  for (const button of byId("slides").children) button.setAttribute("aria-pressed", String(button.dataset.series === series));
  if (library) await paint(series);
  await tell();
}

async function paint(series) {
  const metadata = (await json(`${wado}/series/${series}/metadata`)).filter((item) => item["00080008"]?.Value?.[2] === "VOLUME");
  if (!metadata.length) return say("The series holds no level of a slide.");
  const { VLWholeSlideMicroscopyImage } = library.metadata;
  const levels = metadata.map((item) => new VLWholeSlideMicroscopyImage({ metadata: item }));
  const container = byId("slide");
  container.addEventListener("dicommicroscopyviewer_frame_loading_ended", (event) => {
    if (event.detail?.payload?.pixelArray) container.dataset.tiles = String(Number(container.dataset.tiles) + 1);
    // A map's tile that comes when everything else is painted is not painted by itself: a change of style does it.
    if (maps.has(event.detail?.payload?.seriesInstanceUID)) setTimeout(repaint, 50);
  });
  shown.frame = value(metadata[0], "00200052");
  shown.viewer = new library.viewer.VolumeImageViewer({
    client,
    metadata: levels,
    controls: ["overview", "fullscreen"],
    errorInterceptor: (error) => {
      say(`The viewer says: ${error.message}`);
      return error;
    },
  });
  shown.viewer.render({ container });
}

// --- the result -------------------------------------------------------------------------------------------------------

async function tell() {
  const { series } = shown;
  const slide = await json(`${api}/series/${series}/pathology`).catch(() => null);
  if (series !== shown.series) return;
  if (!slide) {
    byId("state").textContent = "Not analysed";
    byId("progress").textContent = "Nobody has asked for the analysis of this slide.";
    return;
  }
  byId("state").textContent = `${slide.model}: ${slide.state.replaceAll("_", " ")}`;
  byId("progress").textContent = FINAL.includes(slide.state)
    ? [slide.reason?.replaceAll("_", " "), slide.detail].filter(Boolean).join(": ")
    : `${slide.progress} % of the tiles are done`;
  if (slide.result && slide.state !== shown.state) numbers(slide);
  if (!FINAL.includes(slide.state)) {
    shown.timer = setTimeout(() => tell().catch((error) => say(error.message)), LOOK_MS);
  } else if (slide.state !== shown.state) {
    await overlays(slide);
  }
  shown.state = slide.state;
}

function row(cells) {
  const line = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = document.createElement(index ? "td" : "th");
    cell.textContent = text;
    if (index) cell.className = "number";
    line.append(cell);
  });
  return line;
}

function numbers({ result, attachments, series_uid: series }) {
  const share = Object.entries(result.class_share).map(([name, part]) => row([`Share ${name}`, `${(100 * part).toFixed(1)} %`]));
  const { tiles } = result;
  byId("facts").tBodies[0].replaceChildren(
    row(["Tissue", `${result.tissue_area_mm2.toFixed(2)} mm²`]),
    row(["Tiles", `${tiles.done} of ${tiles.planned}${tiles.failed ? `, ${tiles.failed} failed` : ""}`]),
    ...share,
    ...(result.nuclei_per_mm2 === null ? [] : [row(["Nuclei", `${Math.round(result.nuclei_per_mm2)} per mm²`])]),
  );
  byId("regions").tBodies[0].replaceChildren(
    ...result.regions.map((r) => row([`${Math.round(r.x)}, ${Math.round(r.y)}`, r.area_mm2.toFixed(3), r.score.toFixed(2)])),
  );
  byId("regions").hidden = byId("regions-title").hidden = !result.regions.length;
  byId("flags").textContent = result.flags.length ? `Quality: ${result.flags.join(", ").replaceAll("_", " ")}` : "";
  byId("documents").replaceChildren(
    ...attachments.flatMap((name) => {
      const link = document.createElement("a");
      link.href = `${api}/series/${series}/pathology/${name}`;
      link.textContent = name;
      return [link, " "];
    }),
  );
}

function repaint() {
  const opacity = byId("opacity").value / 100;
  const visible = [...document.querySelectorAll('#layers input[data-kind="segment"]:checked')];
  for (const box of visible) shown.viewer.setSegmentStyle(box.dataset.uid, { opacity: opacity * 0.99 });
  requestAnimationFrame(() => visible.forEach((box) => shown.viewer.setSegmentStyle(box.dataset.uid, { opacity })));
}

async function overlays(slide) {
  if (!library) return picture(slide);
  const found = await json(`${wado}/series?includefield=00080060`);
  const objects = { SEG: [], ANN: [] };
  for (const item of found) {
    const list = objects[value(item, "00080060")];
    if (list) list.push(...(await json(`${wado}/series/${value(item, "0020000E")}/metadata`)));
  }
  // A study holds the results of all of its slides: those of this one lie in its frame of reference, or name its images.
  const mine = (item) => value(item, "00200052") === shown.frame || JSON.stringify(item["00081115"] ?? "").includes(shown.series);
  const layers = byId("layers");
  layers.replaceChildren(layers.querySelector("legend"));
  for (const item of objects.SEG.filter(mine)) {
    maps.add(value(item, "0020000E"));
    shown.viewer.addSegments([new library.metadata.Segmentation({ metadata: item })]);
  }
  const segments = shown.viewer.getAllSegments();
  for (const segment of segments) layer(`Map: ${segment.label}, scores from 0.1`, segment.uid, "segment", segment.label === slide.result?.target);
  for (const item of objects.ANN.filter(mine)) {
    shown.viewer.addAnnotationGroups(new library.metadata.MicroscopyBulkSimpleAnnotations({ metadata: item }));
  }
  for (const group of shown.viewer.getAllAnnotationGroups()) layer(`Marks: ${group.label}`, group.uid, "marks", false);
  layers.hidden = layers.children.length < 2;
  document.querySelector(".opacity").hidden = !segments.length;
}

function layer(label, uid, kind, on) {
  const line = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: on });
  Object.assign(box.dataset, { kind, uid });
  const show = () => {
    if (kind === "segment") {
      if (box.checked) shown.viewer.showSegment(uid, { opacity: byId("opacity").value / 100 });
      else shown.viewer.hideSegment(uid);
    } else if (box.checked) shown.viewer.showAnnotationGroup(uid);
    else shown.viewer.hideAnnotationGroup(uid);
  };
  box.addEventListener("change", show);
  line.append(box, ` ${label}`);
  byId("layers").append(line);
  if (on) show();
}

function picture(slide) {
  if (!slide.attachments.includes("overlay.png")) return;
  const image = document.createElement("img");
  image.alt = "Map over the slide";
  image.src = `${api}/series/${slide.series_uid}/pathology/overlay.png`;
  byId("slide").classList.add("picture");
  byId("slide").replaceChildren(image);
}

function say(text) {
  byId("message").textContent = text;
}

byId("opacity").addEventListener("input", repaint);

async function start() {
  if (!library) {
    const code = Object.assign(document.createElement("code"), { textContent: "wetread viewer install" });
    byId("message").append("The slide viewer is not installed: the picture of the result stands for it. On the server: ", code);
  }
  const { slides } = await json(`${api}/pathology`);
  slides.forEach((slide, index) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Slide ${index + 1}` });
    button.dataset.series = slide.series_uid;
    button.addEventListener("click", () => open(slide.series_uid).catch((error) => say(error.message)));
    byId("slides").append(button);
  });
  if (slides.length < 2) byId("slides").hidden = true;
  if (slides.length) await open(slides[0].series_uid);
}

start().catch((error) => say(error.message));
