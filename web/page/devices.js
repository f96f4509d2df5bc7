/** Microphones, cameras and speakers: opening them, what can go wrong, and choosing others during a call. */

const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const VIDEO = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } };

/** Sentences for what `getUserMedia` throws, by error name and by what was asked for. */
const SENTENCES = {
  NotAllowedError: (what) => `The browser does not let this page use your ${what}. Allow it in the address bar, then try again.`,
  NotFoundError: (what) => `No ${what} was found. Connect one and pick it under Devices.`,
  NotReadableError: (what) => `Your ${what} is in use by another program. Close that, then pick it under Devices.`,
};

/**
 * @param {string} kind "microphone", "camera" or both in words @param {unknown} error
 * @returns {string} what to tell the person
 */
export function deviceSentence(kind, error) {
  return (SENTENCES[error?.name] ?? ((what) => `Your ${what} could not be opened.`))(kind);
}

/**
 * Opens what there is: microphone and camera, or one of them, or neither.
 * @param {{microphone?: string, camera?: string}} chosen device ids
 * @returns {Promise<{stream: MediaStream, problems: string[]}>} a sentence for each that could not be had
 */
export async function openDevices(chosen = {}) {
  const media = navigator.mediaDevices;
  if (!media) return { stream: new MediaStream(), problems: ["This page must be opened over https or on localhost to use a camera."] };
  try {
    return { stream: await media.getUserMedia({ audio: audio(chosen.microphone), video: video(chosen.camera) }), problems: [] };
  } catch (both) {
    const stream = new MediaStream();
    const problems = [];
    for (const [kind, constraints] of [["microphone", { audio: audio(chosen.microphone) }], ["camera", { video: video(chosen.camera) }]]) {
      try {
        (await media.getUserMedia(constraints)).getTracks().forEach((track) => stream.addTrack(track));
      } catch (error) {
        problems.push(deviceSentence(kind, error));
      }
    }
    if (problems.length === 2 && both.name === "NotAllowedError") {
      return { stream, problems: [deviceSentence("microphone and camera", both)] };
    }
    return { stream, problems };
  }
}

/** @param {"audio" | "video"} kind @param {string} [deviceId] @returns {Promise<MediaStreamTrack>} */
export async function openOne(kind, deviceId) {
  const constraints = kind === "audio" ? { audio: audio(deviceId) } : { video: video(deviceId) };
  return (await navigator.mediaDevices.getUserMedia(constraints)).getTracks()[0];
}

const exact = (deviceId) => (deviceId ? { deviceId: { exact: deviceId } } : {});
const audio = (deviceId) => ({ ...AUDIO, ...exact(deviceId) });
const video = (deviceId) => ({ ...VIDEO, ...exact(deviceId) });

/**
 * Fills a picker; keeps the choice where the device is still there.
 * @param {HTMLSelectElement} select @param {MediaDeviceKind} kind @param {string} [current] device id in use
 * @returns {Promise<number>} how many there are
 */
export async function fillPicker(select, kind, current) {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const fitting = devices.filter((device) => device.kind === kind && device.deviceId);
  select.replaceChildren(...fitting.map((device, index) => {
    const option = document.createElement("option");
    option.value = device.deviceId;
    option.textContent = device.label || `${select.labels[0].textContent} ${index + 1}`;
    option.selected = device.deviceId === current;
    return option;
  }));
  if (!fitting.length) select.append(new Option("None found", ""));
  select.disabled = fitting.length < 1;
  return fitting.length;
}
