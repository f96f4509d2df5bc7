/**
 * What each m-line offers: the codecs and header extensions that a relay of this kind forwards, and no more. A browser's full
 * list is 4 KB a video line, and an offer, like the envelope around it, may have 64 KiB.
 */

/** Chrome lists ten profiles of H.264 and four of VP9; others than these are not worth their 200 bytes a line. */
const WANTED = [
  /^audio\/opus/i,
  /^video\/VP8/i,
  /^video\/H264.*packetization-mode=1.*profile-level-id=42(e0|00)1f/i,
  /^video\/H264.*profile-level-id=42(e0|00)1f.*packetization-mode=1/i,
  /^video\/VP9($|.*profile-id=0)/i,
  /^video\/AV1($|.*profile=0)/i,
  /^video\/rtx/i,
];
const EXTENSIONS = [
  "urn:ietf:params:rtp-hdrext:sdes:mid",
  "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
  "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
  "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
];

/** @param {RTCRtpTransceiver} line before it is first described from here, in an offer or an answer */
export function trimOffer(line) {
  const capabilities = RTCRtpReceiver.getCapabilities(line.receiver.track.kind);
  const codecs = capabilities?.codecs.filter(({ mimeType, sdpFmtpLine = "" }) =>
    WANTED.some((pattern) => pattern.test(`${mimeType} ${sdpFmtpLine}`)));
  try {
    if (codecs?.length) line.setCodecPreferences?.(codecs);
    const extensions = line.getHeaderExtensionsToNegotiate?.();
    for (const extension of extensions ?? []) if (!EXTENSIONS.includes(extension.uri)) extension.direction = "stopped";
    if (extensions) line.setHeaderExtensionsToNegotiate(extensions);
  } catch {
    // An untrimmed offer is longer, not wrong.
  }
}
