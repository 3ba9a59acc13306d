// Pictures by drag and drop, three at a time, each with its progress and what became of it. Without this, the form works.

const form = document.getElementById("upload");
const input = document.getElementById("files");
const drop = document.querySelector(".drop");
const list = document.getElementById("progress");
const said = document.getElementById("said");
const AT_ONCE = 3;
const waiting = [];
let running = 0;
let done = 0;
let failed = 0;

const part = (kind, name, text = "") => Object.assign(document.createElement(kind), { className: name, textContent: text });

function add(files) {
  for (const file of files) {
    const row = part("li", "");
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    row.append(part("span", "name", file.name), part("span", "said", "waits"), bar);
    list.append(row);
    waiting.push({ file, row, bar });
  }
  pump();
}

function pump() {
  while (running < AT_ONCE && waiting.length) send(waiting.shift());
}

function send(job) {
  running += 1;
  const request = new XMLHttpRequest(); // fetch tells no progress of what it sends
  const body = new FormData(form);
  body.delete("files");
  body.append("files", job.file);
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => (job.bar.value = event.loaded / event.total));
  request.addEventListener("load", () => ended(job, request.status, request.response));
  request.addEventListener("error", () => ended(job, 0, null));
  job.row.querySelector(".said").textContent = "sending …";
  request.send(body);
}

function ended(job, status, answer) {
  running -= 1;
  if (status === 503 || status === 429) {
    job.row.querySelector(".said").textContent = "the queue is full: tried again in a while";
    setTimeout(() => (waiting.push(job), pump()), 10000);
    return pump();
  }
  const results = answer?.results ?? [];
  const wrong = results.filter((result) => result.problem).map((result) => result.problem);
  if (!results.length) wrong.push(problemOf(status, answer));
  const told = job.row.querySelector(".said");
  job.bar.remove();
  if (wrong.length) {
    failed += 1;
    job.row.className = "failed";
    told.textContent = wrong.join(" ");
  } else {
    done += 1;
    told.textContent = "";
    const first = results[0];
    const words = results.length > 1 ? `received: ${results.length} pictures` : first.is_new ? "received" : "received before: the same case";
    if (first.address) told.append(Object.assign(part("a", "", words), { href: first.address }));
    else told.textContent = words;
  }
  said.textContent = `${done} received${failed ? `, ${failed} not: see the list` : ""}${waiting.length + running ? ` , ${waiting.length + running} to go` : "."}`;
  pump();
}

const problemOf = (status, answer) =>
  answer?.detail ??
  (status === 0 ? "No connection: nothing was sent. Choose it again once you are connected." :
    status === 413 ? "It is too large." : `The server could not take it (${status}). Choose it again in a while.`);

if (form) {
  document.getElementById("send").hidden = true;
  input.addEventListener("change", () => (add(input.files), (input.value = "")));
  form.addEventListener("submit", (event) => (event.preventDefault(), add(input.files), (input.value = "")));
  for (const kind of ["dragenter", "dragover"])
    drop.addEventListener(kind, (event) => (event.preventDefault(), drop.classList.add("over")));
  for (const kind of ["dragleave", "drop"])
    drop.addEventListener(kind, (event) => (event.preventDefault(), drop.classList.remove("over")));
  drop.addEventListener("drop", (event) => add(event.dataTransfer.files));
  addEventListener("beforeunload", (event) => running && event.preventDefault());
}
