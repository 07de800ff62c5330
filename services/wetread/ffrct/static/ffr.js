// The coronary tree in 3D (WebGL, tubes built here) and FFR along the vessel that is clicked. No library.
"use strict";

const STOPS = [[0.5, 140, 45, 4], [0.7, 236, 112, 20], [0.8, 254, 227, 145], [0.9, 116, 169, 207], [1.0, 4, 90, 141]];
const SIDES = 10;
const byId = (id) => document.getElementById(id);

function colour(ffr) {
  if (ffr === null || ffr === undefined) return [128, 128, 128];
  const v = Math.min(1, Math.max(0.5, ffr));
  const i = Math.max(1, STOPS.findIndex((stop) => stop[0] >= v));
  const [a, b] = [STOPS[i - 1], STOPS[i]];
  const t = (v - a[0]) / (b[0] - a[0]);
  return [1, 2, 3].map((c) => a[c] + t * (b[c] - a[c]));
}

const sub = (a, b) => a.map((v, i) => v - b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((v) => v / n); };

function tube(points, radius, ffr, middle) {
  const data = [], faces = [];
  let side = null;
  points.forEach((p, i) => {
    const along = unit(sub(points[Math.min(i + 1, points.length - 1)], points[Math.max(i - 1, 0)]));
    side = side || cross(along, Math.abs(along[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0]);
    side = unit(sub(side, along.map((v) => v * dot(side, along))));
    const other = cross(along, side);
    const rgb = colour(ffr ? ffr[i] : null).map((v) => v / 255);
    for (let k = 0; k < SIDES; k += 1) {
      const angle = (2 * Math.PI * k) / SIDES;
      const out = side.map((v, c) => Math.cos(angle) * v + Math.sin(angle) * other[c]);
      data.push(...p.map((v, c) => v - middle[c] + radius[i] * out[c]), ...out, ...rgb);
      if (i + 1 < points.length) {
        const [a, b] = [i * SIDES + k, i * SIDES + ((k + 1) % SIDES)];
        faces.push(a, b, a + SIDES, b, b + SIDES, a + SIDES);
      }
    }
  });
  return { data: new Float32Array(data), faces: new Uint32Array(faces) };
}

const VERTEX = `#version 300 es
in vec3 at; in vec3 normal; in vec3 rgb; uniform mat3 turn; uniform vec2 scale; uniform float lift; out vec3 shade;
void main() { vec3 p = turn * at; vec3 n = turn * normal;
  gl_Position = vec4(p.x * scale.x, p.y * scale.y, p.z * -0.004, 1.0);
  shade = rgb * (0.45 + 0.55 * max(0.0, n.z)) + lift; }`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 colour; void main() { colour = vec4(shade, 1.0); }`;

class Scene {
  constructor(canvas, vessels, pick) {
    this.canvas = canvas; this.vessels = vessels; this.pick = pick;
    this.yaw = 0; this.pitch = 0; this.zoom = 1; this.chosen = 0;
    const all = vessels.flatMap((v) => v.points);
    this.middle = [0, 1, 2].map((c) => (Math.min(...all.map((p) => p[c])) + Math.max(...all.map((p) => p[c]))) / 2);
    this.extent = Math.max(...all.map((p) => Math.hypot(...sub(p, this.middle)))) * 1.12;
    const gl = canvas.getContext("webgl2", { antialias: true });
    this.gl = gl;
    const program = gl.createProgram();
    [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]].forEach(([kind, text]) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
    });
    gl.linkProgram(program); gl.useProgram(program); gl.enable(gl.DEPTH_TEST); gl.clearColor(0.094, 0.106, 0.129, 1);
    this.uniform = (name) => gl.getUniformLocation(program, name);
    this.meshes = vessels.map((v) => {
      const mesh = tube(v.points, v.radius, v.ffr, this.middle);
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ARRAY_BUFFER, mesh.data, gl.STATIC_DRAW);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.faces, gl.STATIC_DRAW);
      ["at", "normal", "rgb"].forEach((name, k) => {
        const place = gl.getAttribLocation(program, name);
        gl.enableVertexAttribArray(place); gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 36, 12 * k);
      });
      return { array, count: mesh.faces.length };
    });
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  matrix() { // rows: screen right, screen up, towards the viewer; LPS seen from the front at rest
    const [cy, sy, cp, sp] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    const right = [cy, sy, 0], front = [sy, -cy, 0];
    const up = [-front[0] * sp, -front[1] * sp, cp], toward = [front[0] * cp, front[1] * cp, sp];
    return [right, up, toward];
  }

  scale() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const k = (this.zoom * Math.min(w, h)) / this.extent;
    return [k / w, k / h];
  }

  draw() {
    const { gl, canvas } = this, ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
    gl.viewport(0, 0, canvas.width, canvas.height); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const m = this.matrix();
    gl.uniformMatrix3fv(this.uniform("turn"), false, [0, 1, 2].flatMap((c) => m.map((row) => row[c])));
    gl.uniform2f(this.uniform("scale"), ...this.scale());
    this.meshes.forEach((mesh, i) => {
      gl.uniform1f(this.uniform("lift"), i === this.chosen ? 0.12 : 0);
      gl.bindVertexArray(mesh.array); gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    });
  }

  nearest(x, y) { // vessel whose centreline lies nearest to the pointer on the screen, within 14 pixels
    const m = this.matrix(), [sx, sy] = this.scale(), { clientWidth: w, clientHeight: h } = this.canvas;
    let best = 14, found = -1;
    this.vessels.forEach((v, i) => v.points.forEach((p) => {
      const q = sub(p, this.middle);
      const d = Math.hypot((dot(m[0], q) * sx + 1) * w / 2 - x, (1 - dot(m[1], q) * sy) * h / 2 - y);
      if (d < best) { best = d; found = i; }
    }));
    return found;
  }

  listen() {
    let from = null, moved = 0;
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (e) => { from = [e.clientX, e.clientY]; moved = 0; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => {
      if (!from) return;
      const [dx, dy] = [e.clientX - from[0], e.clientY - from[1]];
      moved += Math.abs(dx) + Math.abs(dy); from = [e.clientX, e.clientY];
      this.turn(dx * 0.008, dy * 0.008);
    });
    canvas.addEventListener("pointerup", (e) => {
      const box = canvas.getBoundingClientRect();
      const found = moved < 6 ? this.nearest(e.clientX - box.left, e.clientY - box.top) : -1;
      from = null;
      if (found >= 0) this.pick(found);
    });
    canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom = Math.min(8, Math.max(0.5, this.zoom * Math.exp(-e.deltaY * 0.001))); this.draw(); }, { passive: false });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
      if (step) { e.preventDefault(); this.turn(...step); }
    });
  }

  turn(dx, dy) { this.yaw -= dx; this.pitch = Math.min(1.5, Math.max(-1.5, this.pitch + dy)); this.draw(); }
}

function drawCurve(canvas, vessel, lesions) {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  canvas.width = w * ratio; canvas.height = h * ratio;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio); g.font = "12px system-ui, sans-serif";
  const left = 42, bottom = h - 26, length = vessel.s[vessel.s.length - 1];
  const x = (s) => left + (s / length) * (w - left - 10), y = (v) => 8 + (1 - Math.max(0.5, v)) / 0.5 * (bottom - 8);
  g.clearRect(0, 0, w, h);
  [1, 0.9, 0.8, 0.75, 0.6, 0.5].forEach((v) => {
    g.strokeStyle = v === 0.8 ? "#8a8f98" : "#2f353e"; g.beginPath(); g.moveTo(left, y(v)); g.lineTo(w - 10, y(v)); g.stroke();
    g.fillStyle = "#9aa3ad"; g.fillText(v.toFixed(2), 6, y(v) + 4);
  });
  for (let s = 0; s <= length; s += 20) { g.fillStyle = "#9aa3ad"; g.fillText(`${s} mm`, x(s) - 8, h - 8); }
  lesions.forEach((l) => { g.fillStyle = "rgba(250,220,90,0.16)"; g.fillRect(x(l.s_start_mm), 8, x(l.s_end_mm) - x(l.s_start_mm), bottom - 8); });
  if (!vessel.ffr) { g.fillStyle = "#e6e8eb"; g.fillText(`no FFR: ${vessel.reason}`, left + 10, 40); return; }
  if (vessel.p5) {
    g.fillStyle = "rgba(142,160,185,0.28)"; g.beginPath();
    vessel.s.forEach((s, i) => { if (vessel.p95[i] !== null) g.lineTo(x(s), y(vessel.p95[i])); });
    for (let i = vessel.s.length - 1; i >= 0; i -= 1) if (vessel.p5[i] !== null) g.lineTo(x(vessel.s[i]), y(vessel.p5[i]));
    g.fill();
  }
  g.lineWidth = 3;
  for (let i = 1; i < vessel.s.length; i += 1) {
    if (vessel.ffr[i] === null || vessel.ffr[i - 1] === null) continue;
    g.strokeStyle = `rgb(${colour(vessel.ffr[i]).join(",")})`;
    g.beginPath(); g.moveTo(x(vessel.s[i - 1]), y(vessel.ffr[i - 1])); g.lineTo(x(vessel.s[i]), y(vessel.ffr[i])); g.stroke();
  }
}

async function main() {
  const answer = await fetch(`/api/v1/studies/${document.body.dataset.study}/ffr`);
  const body = await answer.json();
  if (!body.result) { byId("title").textContent = `No FFR: ${body.code || body.detail || body.state}`; byId("reading").textContent = body.detail || ""; return; }
  const vessels = body.tree.vessels.map((v, i) => {
    const r = body.result.vessels[i];
    return { id: v.id, label: v.label || v.id, points: v.points_mm, radius: v.radius_mm, s: r.s_mm, ffr: r.ffr, p5: r.ffr_p5, p95: r.ffr_p95, reason: r.reason, flags: r.flags, tier: r.tier_used };
  });
  const { bc, lesions } = body.result;
  byId("borders").textContent = `Boundary conditions ${bc.status}; flow ${bc.inlet_ml_min.toFixed(0)} mL/min, aortic pressure ${bc.map_mmhg.toFixed(0)} mmHg. Constants not confirmed by a source: ${body.result.constants.unconfirmed.length}.`;
  byId("flags").textContent = body.result.flags && body.result.flags.length ? `Image: ${body.result.flags.join(", ")}` : "";
  const rows = byId("lesions").tBodies[0];
  const fixed = (v, n) => (v === null || v === undefined ? "none" : v.toFixed(n));
  lesions.forEach((l) => {
    const row = rows.insertRow();
    const band = l.ffr_p5 === null ? "" : `${fixed(l.ffr_p5, 2)} to ${fixed(l.ffr_p95, 2)}`;
    [l.id, l.vessel, `${l.diameter_stenosis_pct.toFixed(0)} %`, `${l.length_mm.toFixed(1)} mm`, l.reason || fixed(l.ffr_distal_20mm, 2), band, l.tier_used]
      .forEach((text) => { row.insertCell().textContent = text; });
  });
  let scene = null;
  const buttons = vessels.map((v, i) => {
    const button = document.createElement("button");
    const known = (v.ffr || []).filter((f) => f !== null);
    button.textContent = `${v.label} ${known.length ? known[known.length - 1].toFixed(2) : "none"}`;
    button.addEventListener("click", () => choose(i));
    byId("vessels").append(button);
    return button;
  });
  function choose(i) {
    const v = vessels[i];
    buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(k === i)));
    byId("title").textContent = `${v.label}, FFR along the vessel`;
    byId("reading").textContent = [`model ${v.tier}`, ...v.flags].join(", ");
    drawCurve(byId("curve"), v, lesions.filter((l) => l.vessel === v.id));
    scene.chosen = i; scene.draw();
  }
  scene = new Scene(byId("tree"), vessels, choose);
  const lowest = vessels.map((v) => Math.min(...(v.ffr || [1]).filter((f) => f !== null)));
  choose(lowest.indexOf(Math.min(...lowest)));
  window.addEventListener("resize", () => choose(scene.chosen));
  document.body.dataset.ready = "yes";
}

main();
