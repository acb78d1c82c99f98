"use strict";
// A page of one partition: WebGL draws pieces, edges and boundary; a hidden picture of numbers
// answers which region lies under the pointer.
(async () => {
  const began = performance.now();
  const byId = name => document.getElementById(name);
  const facts = JSON.parse(byId("facts").textContent);
  const canvas = byId("gl"), over = byId("over"), tip = byId("tip");
  const fail = text => { byId("failed").textContent = text; byId("failed").hidden = false; };
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) return fail("This page needs WebGL 2, which this browser does not offer.");

  // ---------------------------------------------------------------- what was measured
  const text = atob(byId("data").textContent.trim());
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();
  byId("data").remove();
  const kinds = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
  const a = {};
  for (const [name, kind, start, count] of facts.arrays) a[name] = new kinds[kind](raw, start, count);
  const pieces = a.size.length, regions = a.area.length, WIDE = 2048;

  // ---------------------------------------------------------------- textures and programs
  const texture = (data, items, inner, format, type, channels) => {
    const rows = Math.max(1, Math.ceil(items / WIDE));
    if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error("too large for this device");
    const full = new data.constructor(rows * WIDE * channels);
    full.set(data);
    const t = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, t);
    gl.texImage2D(gl.TEXTURE_2D, 0, inner, WIDE, rows, 0, format, type, full);
    for (const p of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, p, gl.NEAREST);
    return t;
  };
  const head = `#version 300 es
    precision highp float; precision highp int; precision highp sampler2D; precision highp usampler2D;
    `;
  const lookup = `uniform sampler2D points; uniform vec2 middle; uniform vec2 scale;
    ivec2 at(uint i) { return ivec2(int(i % ${WIDE}u), int(i / ${WIDE}u)); }
    vec2 place(uint v) { return (texelFetch(points, at(v), 0).xy - middle) * scale; }
    `;
  const program = (vertex, fragment) => {
    const made = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, head + source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
    const found = {};
    for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
      const name = gl.getActiveUniform(made, i).name;
      found[name] = gl.getUniformLocation(made, name);
    }
    return { made, at: found };
  };
  const fills = `${lookup} uniform usampler2D corners; flat out uint piece;
    void main() {
      uint t = uint(gl_VertexID) / 3u; uint k = uint(gl_VertexID) % 3u;
      uvec4 c = texelFetch(corners, at(t), 0);
      piece = c.w;
      gl_Position = vec4(place(k == 0u ? c.x : k == 1u ? c.y : c.z), 0, 1);
    }`;
  const show = program(fills, `uniform sampler2D shades; flat in uint piece; out vec4 color;
    void main() { color = texelFetch(shades, ivec2(int(piece % ${WIDE}u), int(piece / ${WIDE}u)), 0); }`);
  const count = program(fills, `flat in uint piece; out vec4 color;
    void main() { uint n = piece + 1u;
      color = vec4(float(n & 255u), float((n >> 8u) & 255u), float((n >> 16u) & 255u), float(n >> 24u)) / 255.0; }`);
  const strokes = program(`${lookup} uniform usampler2D ends;
    void main() { uvec4 e = texelFetch(ends, at(uint(gl_VertexID) / 2u), 0);
      gl_Position = vec4(place(gl_VertexID % 2 == 0 ? e.x : e.y), 0, 1); }`,
    "uniform vec4 ink; out vec4 color; void main() { color = vec4(ink.rgb * ink.a, ink.a); }");
  // a segment with a width: two triangles, round enough by going half a width beyond its ends
  const ribbon = program(`${lookup} uniform sampler2D segments; uniform vec2 pixel; uniform float width;
    void main() {
      uint s = uint(gl_VertexID) / 6u; int k = gl_VertexID % 6;
      vec4 e = texelFetch(segments, at(s), 0);
      vec2 p = (e.xy - middle) * scale, q = (e.zw - middle) * scale;
      vec2 along = (q - p) / pixel; float l = length(along);
      along = l > 0.0 ? along / l : vec2(1, 0);
      vec2 side = vec2(-along.y, along.x);
      bool end = k == 1 || k == 2 || k == 4; float s2 = (k == 0 || k == 1 || k == 3) ? -1.0 : 1.0;
      vec2 base = end ? q : p;
      gl_Position = vec4(base + (side * s2 + along * (end ? 0.5 : -0.5)) * width * 0.5 * pixel, 0, 1);
    }`, "uniform vec4 ink; out vec4 color; void main() { color = vec4(ink.rgb * ink.a, ink.a); }");

  // ---------------------------------------------------------------- triangles
  let triangles = 0;
  for (let i = 0; i < pieces; i++) triangles += a.size[i] - 2;
  const corners = new Uint32Array(4 * triangles);
  for (let i = 0, t = 0, start = 0; i < pieces; start += a.size[i++]) {
    for (let k = 1; k < a.size[i] - 1; k++, t += 4) {
      corners[t] = a.loop[start]; corners[t + 1] = a.loop[start + k]; corners[t + 2] = a.loop[start + k + 1];
      corners[t + 3] = i;
    }
  }
  const ends = new Uint32Array(2 * a.edge.length);
  for (let i = 0; i < a.edge.length / 2; i++) { ends[4 * i] = a.edge[2 * i]; ends[4 * i + 1] = a.edge[2 * i + 1]; }
  const tex = {
    points: texture(a.point, a.point.length / 2, gl.RG32F, gl.RG, gl.FLOAT, 2),
    corners: texture(corners, triangles, gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, 4),
    ends: texture(ends, ends.length / 4, gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, 4),
    segments: texture(a.boundary, a.boundary.length / 4, gl.RGBA32F, gl.RGBA, gl.FLOAT, 4),
    shades: null,
  };

  // ---------------------------------------------------------------- colours
  const hex = c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16));
  const noise = i => { let x = Math.imul(i + 1, 2654435761) >>> 0; x ^= x >>> 15; return (Math.imul(x, 2246822519) >>> 8 & 65535) / 65535; };
  const ramp = (stops, t) => {
    const x = Math.min(Math.max(t, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(x), stops.length - 2);
    return stops[i].map((v, k) => v + (x - i) * (stops[i + 1][k] - v));
  };
  const stops = facts.ramp.map(hex), cycle = facts.cycle.map(hex);
  const format = x => x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(3);
  const spread = values => {
    let low = Infinity, high = 0;
    const some = [];
    for (let i = 0; i < values.length; i += Math.ceil(values.length / 5e4)) if (values[i] > 0) some.push(values[i]);
    some.sort((x, y) => x - y);
    low = some.length ? some[Math.floor(some.length / 100)] : 1;
    high = some.length ? some[some.length - 1] : 1;
    return low < high ? [low, high] : [low / 2, high * 2];
  };
  const modes = {
    class: piece => {
      const tint = 0.45 + 0.25 * noise(a.region[piece]);
      const c = a.label[piece] === 65535 ? [200, 200, 196] : cycle[a.label[piece] % cycle.length];
      return c.map(v => 255 - tint * (255 - v));
    },
    random: piece => ramp(stops, 0.1 + 0.8 * noise(a.region[piece])),
  };
  const limits = {};
  for (const name of ["slope", "area"]) {
    if (!a[name] || !a[name].length) continue;
    const [low, high] = limits[name] = spread(a[name]);
    const turn = name === "area";
    modes[name] = piece => {
      const t = Math.log(Math.max(a[name][a.region[piece]], low) / low) / Math.log(high / low);
      return ramp(stops, turn ? 1 - t : t);
    };
  }
  const paint = mode => {
    const shade = new Uint8Array(4 * pieces), of = modes[mode];
    for (let i = 0; i < pieces; i++) { const c = of(i); for (let k = 0; k < 3; k++) shade[4 * i + k] = c[k]; shade[4 * i + 3] = 255; }
    if (tex.shades) gl.deleteTexture(tex.shades);
    tex.shades = texture(shade, pieces, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, 4);
    legend(mode);
  };
  const element = (tag, parent, said, cls) => {
    const e = document.createElement(tag);
    if (said !== undefined) e.textContent = said;
    if (cls) e.className = cls;
    parent.append(e);
    return e;
  };
  function legend(mode) {
    const box = byId("legend");
    box.replaceChildren();
    if (mode === "class") {
      for (const [k, name, share] of facts.classes) {
        const row = element("div", box), c = k < 0 ? [200, 200, 196] : cycle[k % cycle.length];
        element("span", row, "", "swatch").style.background = `rgb(${c.map(v => 255 - 0.57 * (255 - v))})`;
        element("span", row, `${name}, ${share}`);
      }
    } else if (mode !== "random") {
      element("div", box, mode === "slope" ? "norm of the slope" : "area");
      const bar = element("div", box, "", "bar"), list = mode === "area" ? [...stops].reverse() : stops;
      bar.style.background = `linear-gradient(to right, ${list.map(c => `rgb(${c})`).join(",")})`;
      const row = element("div", box, undefined, "ends");
      for (const v of limits[mode]) element("span", row, format(v));
    }
    box.hidden = !box.children.length;
  }

  // ---------------------------------------------------------------- the view
  const view = { x: 0, y: 0, size: 1 };  // middle of the view and pixels per unit
  let pixels = 1, stale = true, asked = false, numbers = null;
  const hidden = new Set();
  const fit = () => {
    view.x = view.y = 0;
    view.whole = view.size = 0.94 * Math.min(canvas.clientWidth / facts.extent[0], canvas.clientHeight / facts.extent[1]);
  };
  const uniforms = (p, extra) => {
    gl.useProgram(p.made);
    gl.uniform2f(p.at.middle, view.x, view.y);
    gl.uniform2f(p.at.scale, 2 * view.size / canvas.clientWidth, 2 * view.size / canvas.clientHeight);
    let unit = 0;
    for (const name of Object.keys(p.at)) {
      if (!(name in tex)) continue;
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, tex[name]);
      gl.uniform1i(p.at[name], unit++);
    }
    for (const [name, value] of Object.entries(extra || {})) gl[`uniform${value.length}f`](p.at[name], ...value);
  };
  const draw = () => {
    asked = false;
    stale = true;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.disable(gl.BLEND);
    uniforms(show);
    gl.drawArrays(gl.TRIANGLES, 0, 3 * triangles);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    if (byId("edges").checked) {
      const long = facts.edge * view.size;  // pixels of a typical edge
      const alpha = Math.min(0.85, Math.max(0.05, long / 14));
      facts.layers.forEach((layer, i) => {
        if (hidden.has(i) || !layer.count) return;
        uniforms(strokes, { ink: [...hex(layer.color).map(v => v / 255), alpha] });
        gl.drawArrays(gl.LINES, 2 * layer.first, 2 * layer.count);
      });
    }
    if (byId("line").checked && a.boundary.length) {
      const wide = Math.min(2.4, Math.max(0.7, facts.segment * view.size / 2));
      uniforms(ribbon, { ink: [0.08, 0.11, 0.14, 1], pixel: [2 / canvas.clientWidth, 2 / canvas.clientHeight], width: [wide] });
      gl.drawArrays(gl.TRIANGLES, 0, 6 * a.boundary.length / 4);
    }
    above();
  };
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };
  const toScreen = (x, y) => [canvas.clientWidth / 2 + (x - view.x) * view.size, canvas.clientHeight / 2 - (y - view.y) * view.size];
  const NS = "http://www.w3.org/2000/svg";
  function above() {
    over.replaceChildren();
    const write = (x, y, said, cls) => {
      const t = document.createElementNS(NS, "text");
      t.setAttribute("x", x); t.setAttribute("y", y);
      t.textContent = said;
      if (cls) t.setAttribute("class", cls);
      over.append(t);
    };
    if (byId("labels").checked && byId("mode").value === "class") {
      const taken = [];
      for (const [x, y, radius, name] of facts.labels) {
        const [u, v] = toScreen(x, y);
        if (radius * view.size < 14 || u < 0 || v < 0 || u > canvas.clientWidth || v > canvas.clientHeight) continue;
        if (taken.some(([p, q]) => Math.hypot(p - u, q - v) < 60)) continue;
        taken.push([u, v]);
        write(u, v, name);
      }
    }
    facts.marks.forEach(([x, y], i) => {
      const [u, v] = toScreen(x, y), c = document.createElementNS(NS, "circle");
      c.setAttribute("cx", u); c.setAttribute("cy", v); c.setAttribute("r", 8);
      over.append(c);
      write(u, v, i + 1, "mark");
    });
  }

  // ---------------------------------------------------------------- which region is where
  const frame = gl.createFramebuffer(), picture = gl.createTexture();
  const refresh = () => {
    if (!stale) return;
    gl.bindTexture(gl.TEXTURE_2D, picture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, canvas.width, canvas.height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, picture, 0);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.disable(gl.BLEND);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    uniforms(count);
    gl.drawArrays(gl.TRIANGLES, 0, 3 * triangles);
    stale = false;
  };
  const pieceAt = (u, v) => {  // CSS pixels from the upper left
    refresh();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    const one = new Uint8Array(4);
    gl.readPixels(Math.floor(u * pixels), canvas.height - 1 - Math.floor(v * pixels), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, one);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return (one[0] | one[1] << 8 | one[2] << 16 | one[3] << 24) - 1;
  };
  const slice = (u, v) => {  // slice coordinates of a place on the screen
    const x = view.x + (u - canvas.clientWidth / 2) / view.size, y = view.y - (v - canvas.clientHeight / 2) / view.size;
    return [facts.middle[0] + x * facts.unit, facts.middle[1] + y * facts.unit];
  };
  const hover = (u, v) => {
    const piece = pieceAt(u, v);
    tip.hidden = piece < 0;
    if (piece < 0) return;
    const r = a.region[piece], at = slice(u, v);
    tip.replaceChildren();
    element("b", tip, `region ${r}`);
    const line = said => { element("br", tip); tip.append(said); };
    const label = a.label[piece];
    line(label === 65535 ? "not cut to the end" : facts.names[label] ?? `class ${label}`);
    line(`area ${format(a.area[r])} (${format(100 * a.area[r] / facts.area)} %)`);
    if (a.slope && a.slope.length) line(`slope ${format(a.slope[r])}`);
    const names = facts.layers.filter((_, i) => i < 64 && (a.layers[2 * r + (i >> 5)] >>> (i & 31) & 1)).map(l => l.name);
    line(names.length ? `edges of ${names.join(", ")}` : "no edge of a layer");
    line(`at ${at.map(format).join(", ")}`);
    const wide = tip.offsetWidth, high = tip.offsetHeight;
    tip.style.left = `${u + 16 + wide > canvas.clientWidth ? Math.max(4, u - wide - 12) : u + 16}px`;
    tip.style.top = `${v + 16 + high > canvas.clientHeight ? Math.max(4, v - high - 12) : v + 16}px`;
  };
  const zoom = (factor, u, v) => {
    u ??= canvas.clientWidth / 2; v ??= canvas.clientHeight / 2;
    const size = Math.min(Math.max(view.size * factor, 10), 1e9);
    view.x += (u - canvas.clientWidth / 2) * (1 / view.size - 1 / size);
    view.y -= (v - canvas.clientHeight / 2) * (1 / view.size - 1 / size);
    view.size = size;
    ask();
  };
  const held = new Map();
  canvas.addEventListener("pointerdown", e => { held.set(e.pointerId, [e.offsetX, e.offsetY]); canvas.setPointerCapture(e.pointerId); });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, e => held.delete(e.pointerId));
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("pointermove", e => {
    const before = held.get(e.pointerId);
    if (!before) return hover(e.offsetX, e.offsetY);
    tip.hidden = true;
    const others = [...held].filter(([id]) => id !== e.pointerId).map(([, p]) => p);
    if (others.length) {
      const [p] = others, far = q => Math.hypot(q[0] - p[0], q[1] - p[1]);
      zoom(far([e.offsetX, e.offsetY]) / Math.max(far(before), 1), p[0], p[1]);
    } else {
      view.x -= (e.offsetX - before[0]) / view.size;
      view.y += (e.offsetY - before[1]) / view.size;
    }
    held.set(e.pointerId, [e.offsetX, e.offsetY]);
    ask();
  });
  canvas.addEventListener("wheel", e => { e.preventDefault(); zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), e.offsetX, e.offsetY); }, { passive: false });
  canvas.addEventListener("dblclick", e => zoom(2, e.offsetX, e.offsetY));
  canvas.addEventListener("keydown", e => {
    const step = 60 / view.size, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (e.key === "+" || e.key === "=") zoom(1.5);
    else if (e.key === "-") zoom(1 / 1.5);
    else if (e.key === "0") { fit(); ask(); }
    else if (moves[e.key]) { view.x += moves[e.key][0]; view.y += moves[e.key][1]; ask(); }
    else return;
    e.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => { Number(button.dataset.zoom) ? zoom(Number(button.dataset.zoom)) : (fit(), ask()); });
  }
  for (const name of Object.keys(modes)) element("option", byId("mode"), name);
  byId("mode").value = facts.mode;
  byId("mode").addEventListener("change", e => { paint(e.target.value); ask(); });
  for (const name of ["edges", "line", "labels"]) byId(name).addEventListener("change", ask);
  byId("controls").addEventListener("submit", e => e.preventDefault());
  facts.layers.forEach((layer, i) => {
    const label = element("label", element("li", byId("layers"))), box = element("input", label);
    box.type = "checkbox"; box.checked = true;
    element("span", label, "", "swatch line").style.background = layer.color;
    label.append(`${layer.name} (${layer.count.toLocaleString("en")})`);
    box.addEventListener("change", () => { box.checked ? hidden.delete(i) : hidden.add(i); ask(); });
  });
  const resize = () => {
    pixels = Math.min(window.devicePixelRatio || 1, 2);
    const [w, h] = [Math.round(canvas.clientWidth * pixels), Math.round(canvas.clientHeight * pixels)];
    if (!w || !h || (w === canvas.width && h === canvas.height)) return;
    const all = view.whole === undefined || view.whole === view.size;  // nothing was chosen yet
    canvas.width = w; canvas.height = h;
    if (all) fit();
    draw();
  };
  paint(facts.mode);
  resize();
  gl.finish();
  canvas.dataset.ready = "true";
  new ResizeObserver(resize).observe(canvas);
  // for those who want to ask the page itself
  window.partition = {
    seconds: (performance.now() - began) / 1000,
    regionAt: (x, y) => {  // of slice coordinates; -1 outside of the view or of the slice
      const [u, v] = toScreen((x - facts.middle[0]) / facts.unit, (y - facts.middle[1]) / facts.unit);
      const piece = pieceAt(u, v);
      return [piece < 0 ? -1 : a.region[piece], slice(Math.floor(u * pixels) / pixels + 0.5 / pixels, Math.floor(v * pixels) / pixels + 0.5 / pixels)];
    },
    zoomTo: (x, y, factor) => { fit(); view.x = (x - facts.middle[0]) / facts.unit; view.y = (y - facts.middle[1]) / facts.unit; view.size *= factor; draw(); },
  };
})().catch(error => {
  const box = document.getElementById("failed");
  box.textContent = `The partition can't be shown: ${error.message}`;
  box.hidden = false;
});
