// The forms of the documentation page: they call this gateway and show what it answers.
"use strict";

const token = document.getElementById("token");
const most = 200000; // characters of an answer that are shown

// plan reads a form into a request.
function plan(operation, form) {
  let path = operation.dataset.path;
  const query = new URLSearchParams();
  const headers = {};
  let body, kind;
  for (const field of form.elements) {
    const value = field.value;
    switch (field.dataset.in) {
      case "path":
        path = path.replace("{" + field.name + "}", encodeURIComponent(value).replace(/%2F/g, "/"));
        break;
      case "query":
        if (value !== "") query.append(field.name, value);
        break;
      case "header":
        if (value !== "") headers[field.name] = value;
        break;
      case "body":
        body = value;
        kind = "application/json";
        break;
      case "file":
        body = field.files[0];
        kind = "application/octet-stream";
    }
  }
  const asked = query.toString();
  const url = path + (asked ? "?" + asked : "");
  return { method: operation.dataset.method, url, headers, body, kind };
}

function curl(request) {
  let text = "curl -X " + request.method + ' -H "Authorization: Bearer $(ucn auth token)"';
  for (const name in request.headers) text += " -H '" + name + ": " + request.headers[name] + "'";
  if (request.kind === "application/octet-stream") text += " --data-binary @" + (request.body ? request.body.name : "FILE");
  if (request.kind === "application/json") text += " -d '" + request.body.replace(/'/g, "'\\''") + "'";
  return text + " '" + location.origin + request.url + "'";
}

async function send(operation, form) {
  const request = plan(operation, form);
  const shown = operation.querySelector(".answer"), line = operation.querySelector(".curl");
  line.textContent = curl(request);
  line.hidden = shown.hidden = false;
  shown.textContent = "...";
  const headers = request.headers;
  if (token.value) headers.Authorization = "Bearer " + token.value.trim();
  if (request.kind) headers["Content-Type"] = request.kind;
  const stop = new AbortController();
  try {
    const answer = await fetch(request.url,
      { method: request.method, headers, body: request.body, signal: stop.signal });
    shown.classList.toggle("bad", !answer.ok);
    let text = answer.status + " " + answer.statusText + "\n\n";
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text += decoder.decode(part.value, { stream: true });
      shown.textContent = text;
      if (text.length > most) {
        stop.abort();
        shown.textContent = text.slice(0, most) + "\n... (more was not read)";
        return;
      }
    }
    const at = text.indexOf("\n\n") + 2;
    try {
      shown.textContent = text.slice(0, at) + JSON.stringify(JSON.parse(text.slice(at)), null, 2);
    } catch {
      shown.textContent = text; // not one JSON value: as it came
    }
  } catch (error) {
    shown.classList.add("bad");
    shown.textContent = String(error);
  }
}

for (const operation of document.querySelectorAll(".operation")) {
  const form = operation.querySelector("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(operation, form);
  });
}

document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const one of document.querySelectorAll("details")) {
    one.hidden = wanted !== "" && !one.querySelector("summary").textContent.toLowerCase().includes(wanted);
  }
});

// A link to something that is folded opens it.
function unfold() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", unfold);
unfold();
