const [state, form, prompt, send, stop, answer] = [
  "state",
  "form",
  "prompt",
  "send",
  "stop",
  "answer",
]
  .map((id) => document.getElementById(id));

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onerror = ({ message }) => state.textContent = message;
worker.onmessage = ({ data }) => {
  if (data.text !== undefined) return void answer.append(data.text);
  state.textContent = data.state;
  send.disabled = !data.ready;
  stop.disabled = !data.busy;
};
form.onsubmit = (event) => {
  event.preventDefault();
  answer.textContent = "";
  worker.postMessage({ prompt: prompt.value });
};
stop.onclick = () => worker.postMessage({ stop: true });
