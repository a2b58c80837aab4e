// The search in a site that is read from a disk: browsers start no workers there, so its script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.onload = () => { this.ready = true; this.waiting.forEach(data => this.postMessage(data)); };
      this.frame.srcdoc = `<script>postMessage = data => frameElement.answer(data)</` + `script><script src="${new URL(url, location)}"></` + `script>`;
      document.body.append(this.frame);
    }
    postMessage(data) {
      if (this.ready) this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
      else this.waiting.push(data);
    }
    terminate() { this.frame.remove(); }
  };
}
