//! RTCP (RFC 3550 section 6) and its feedback messages (RFC 4585, RFC 5104, REMB, transport-wide congestion
//! control). [`compound()`] reads a datagram packet by packet, [`Writer`] writes one; reduced-size packets
//! (RFC 5506) are read and written too.

mod compound;
mod full_intra_request;
mod goodbye;
mod nack;
mod picture_loss;
mod receiver_report;
mod remb;
mod report_block;
mod sender_report;
mod source_description;
mod transport_wide;
mod writer;

pub use compound::{Compound, Packet, Unknown, compound};
pub use full_intra_request::{FirEntry, FullIntraRequest};
pub use goodbye::Goodbye;
pub use nack::{Nack, SequenceNumbers};
pub use picture_loss::PictureLossIndication;
pub use receiver_report::ReceiverReport;
pub use remb::Remb;
pub use report_block::{REPORT_BLOCK_LEN, ReportBlock};
pub use sender_report::{SenderInfo, SenderReport};
pub use source_description::{Chunk, Item, SourceDescription};
pub use transport_wide::{Statuses, TransportWideFeedback};
pub use writer::Writer;

/// RTCP packet types (RFC 3550 section 12.1, RFC 4585 section 6.1).
pub mod packet_type {
    /// SR.
    pub const SENDER_REPORT: u8 = 200;
    /// RR.
    pub const RECEIVER_REPORT: u8 = 201;
    /// SDES.
    pub const SOURCE_DESCRIPTION: u8 = 202;
    /// BYE.
    pub const GOODBYE: u8 = 203;
    /// RTPFB: NACK, transport-wide congestion control.
    pub const TRANSPORT_FEEDBACK: u8 = 205;
    /// PSFB: PLI, FIR, REMB.
    pub const PAYLOAD_FEEDBACK: u8 = 206;
}

/// Things that the five-bit count of a header can say.
pub const COUNT_MAX: usize = 31;

/// Bytes of an RTCP packet's header.
pub const HEADER_LEN: usize = 4;
