//! Bytes to typed views and back: STUN, ChannelData, RTP, RTCP, demultiplexing.
