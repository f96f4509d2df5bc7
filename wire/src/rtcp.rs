//! RTCP (RFC 3550 section 6) and its feedback messages (RFC 4585, RFC 5104, REMB, transport-wide congestion
//! control). [`compound`] reads a datagram packet by packet, [`Writer`] writes one; reduced-size packets
//! (RFC 5506) are read and written too.
