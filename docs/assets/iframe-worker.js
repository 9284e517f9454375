/* Search on file:// pages. Browsers start no worker from a file, so the theme's search runs in a hidden frame there.
   The name is the one that the theme looks for. */
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.frame = frame.contentWindow
      this.ready = new Promise((resolve) => {
        frame.worker = { loaded: resolve, receive: (data) => this.dispatchEvent(new MessageEvent("message", { data })) }
      })
      const page = this.frame.document
      page.open()
      page.write(
        "<script>postMessage = (data) => frameElement.worker.receive(data)</script>" +
          `<script src="${url}" onload="frameElement.worker.loaded()"></script>`,
      )
      page.close()
    }

    postMessage(data) {
      this.ready.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.frameElement.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
