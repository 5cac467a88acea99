//! Circuit relay v2's messages (libp2p specs, `relay/circuit-v2.md`): protobuf behind a length, a handful of fields, written and
//! read here by hand. Only what a relay reads and writes is known; unknown fields are passed over, as protobuf asks.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use std::io;

/// A peer asks the relay.
pub const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");
/// The relay asks a peer.
pub const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");
/// The specification's bound of a message.
const MAX_BYTES: u64 = 4_096;
/// The types of a hop message, and of a stop message.
const RESERVE: u64 = 0;
const CONNECT: u64 = 1;
const STATUS: u64 = 2;
const STOP_CONNECT: u64 = 0;
const STOP_STATUS: u64 = 1;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As asked.
    Ok,
    /// No reservation for this peer.
    ReservationRefused,
    /// A limit is reached.
    ResourceLimit,
    /// Not over a relay.
    PermissionDenied,
    /// The other peer did not take it.
    ConnectionFailed,
    /// The other peer has no reservation.
    NoReservation,
    /// Not understood.
    Malformed,
    /// Understood, and out of place.
    Unexpected,
}

impl Status {
    fn code(self) -> u64 {
        match self {
            Status::Ok => 100,
            Status::ReservationRefused => 200,
            Status::ResourceLimit => 201,
            Status::PermissionDenied => 202,
            Status::ConnectionFailed => 203,
            Status::NoReservation => 204,
            Status::Malformed => 400,
            Status::Unexpected => 401,
        }
    }
}

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// To be reached over the relay.
    Reserve,
    /// To reach a peer.
    Connect(PeerId),
}

/// A message is not what the specification allows.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The stream.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// Its type.
    #[error("a message of this type does not belong here")]
    Unexpected,
}

/// What is read of a message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    kind: Option<u64>,
    peer: Option<Vec<u8>>,
    status: Option<u64>,
}

/// Reads what a peer asks for. Nothing behind the message is read.
pub async fn read_hop(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hop, MessageError> {
    let fields = parse(&read(stream).await?, 5)?;
    match fields.kind {
        Some(RESERVE) => Ok(Hop::Reserve),
        Some(CONNECT) => {
            let id = fields.peer.ok_or(MessageError::Malformed("no peer is named"))?;
            PeerId::from_bytes(&id).map(Hop::Connect).map_err(|_| MessageError::Malformed("the peer's id"))
        }
        Some(_) => Err(MessageError::Unexpected),
        None => Err(MessageError::Malformed("no type")),
    }
}

/// Answers a peer. `reserved`: until when (unix seconds), and the relay's addresses, each with `/p2p/` and its id.
///
/// No limit is told: a circuit has none that ends it while bytes flow, and clients take circuits without limits for connections
/// like any other.
pub async fn write_hop(
    stream: &mut (impl AsyncWrite + Unpin),
    status: Status,
    reserved: Option<(u64, &[Multiaddr])>,
) -> io::Result<()> {
    let mut out = Vec::new();
    put_number(&mut out, 1, STATUS);
    if let Some((expires, addresses)) = reserved {
        let mut reservation = Vec::new();
        put_number(&mut reservation, 1, expires);
        addresses.iter().for_each(|address| put_bytes(&mut reservation, 2, address.as_ref()));
        put_bytes(&mut out, 3, &reservation);
    }
    put_number(&mut out, 5, status.code());
    write(stream, &out).await
}

/// Asks a peer to take a circuit from `source`; whether it does.
pub async fn ask_stop(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), source: &PeerId) -> Result<bool, MessageError> {
    let (mut out, mut peer) = (Vec::new(), Vec::new());
    put_bytes(&mut peer, 1, &source.to_bytes());
    put_number(&mut out, 1, STOP_CONNECT);
    put_bytes(&mut out, 2, &peer);
    write(stream, &out).await?;
    let fields = parse(&read(stream).await?, 4)?;
    if fields.kind != Some(STOP_STATUS) {
        return Err(MessageError::Unexpected);
    }
    Ok(fields.status == Some(Status::Ok.code()))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(message.len() + 2);
    put_varint(&mut out, message.len() as u64);
    out.extend_from_slice(message);
    stream.write_all(&out).await?;
    stream.flush().await
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, MessageError> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let [byte] = byte;
        length |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 14 {
            return Err(MessageError::Malformed("it is too long"));
        }
    }
    if length > MAX_BYTES {
        return Err(MessageError::Malformed("it is too long"));
    }
    let mut message = vec![0; usize::try_from(length).unwrap_or_default()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// `status` is the field of that name, which differs between hop and stop.
fn parse(message: &[u8], status: u64) -> Result<Fields, MessageError> {
    let mut fields = Fields::default();
    let mut rest = message;
    while !rest.is_empty() {
        match next_field(&mut rest)? {
            (1, Value::Number(kind)) => fields.kind = Some(kind),
            (2, Value::Bytes(peer)) => fields.peer = id_of(peer)?,
            (field, Value::Number(code)) if field == status => fields.status = Some(code),
            _ => {}
        }
    }
    Ok(fields)
}

fn id_of(mut peer: &[u8]) -> Result<Option<Vec<u8>>, MessageError> {
    let mut id = None;
    while !peer.is_empty() {
        if let (1, Value::Bytes(bytes)) = next_field(&mut peer)? {
            id = Some(bytes.to_vec());
        }
    }
    Ok(id)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), MessageError> {
    let tag = take_varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(take_varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Other)?,
        2 => {
            let length = take_varint(rest)?;
            Value::Bytes(take(rest, usize::try_from(length).unwrap_or(usize::MAX))?)
        }
        5 => take(rest, 4).map(|_| Value::Other)?,
        _ => return Err(MessageError::Malformed("a field of an unknown kind")),
    };
    Ok((tag >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], MessageError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(MessageError::Malformed("it ends too early"))?;
    *rest = left;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, MessageError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?.first().copied().unwrap_or_default();
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(MessageError::Malformed("a number is too long"))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{executor::block_on, io::Cursor};

    fn hop(bytes: &[u8]) -> Result<Hop, String> {
        block_on(read_hop(&mut Cursor::new(bytes))).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_peer_asks_for_is_read_and_unknown_fields_are_passed_over() {
        assert_eq!(hop(&[2, 0x08, 0]), Ok(Hop::Reserve));
        // Field 9 of 4 bytes, then field 10 of 3 bytes.
        assert_eq!(hop(&[12, 0x4d, 1, 2, 3, 4, 0x52, 3, 1, 2, 3, 0x08, 0]), Ok(Hop::Reserve));
        let peer = PeerId::random();
        let id = peer.to_bytes();
        let mut inner = Vec::new();
        put_bytes(&mut inner, 1, &id);
        let mut message = vec![0x08, 1];
        put_bytes(&mut message, 2, &inner);
        assert_eq!(hop(&[&[message.len() as u8], &message[..]].concat()), Ok(Hop::Connect(peer)));
    }

    #[test]
    fn nothing_of_what_follows_a_message_is_read() {
        let mut stream = Cursor::new([2, 0x08, 0, 7, 7]);
        assert!(block_on(read_hop(&mut stream)).is_ok());
        assert_eq!(stream.position(), 3);
    }

    #[test]
    fn a_bad_message_is_refused_with_a_reason() {
        let check = |bytes: &[u8], part: &str| {
            let told = hop(bytes).expect_err("refused");
            assert!(told.contains(part), "{told}");
        };
        check(&[0], "no type");
        check(&[2, 0x08, 1], "no peer");
        check(&[2, 0x08, 2], "does not belong here");
        check(&[2, 0x0b, 0], "unknown kind");
        check(&[2, 0x12, 9], "ends too early");
        check(&[6, 0x08, 1, 0x12, 2, 0x0a, 9], "ends too early");
        check(&[0x81, 0x20], "too long");
        check(&[0xff, 0xff, 0xff, 0x01], "too long");
        check(&[11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], "a number is too long");
        // Any cut of a good one.
        for length in 0..2 {
            assert!(hop(&[2, 0x08, 0][..length]).is_err());
        }
    }

    /// As protoc writes it: type 2, reservation {expire 300, addrs [/ip4/1.2.3.4/tcp/5]}, status 100.
    #[test]
    fn an_answer_is_what_the_specification_says() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().expect("an address");
        let mut out = Vec::new();
        block_on(write_hop(&mut out, Status::Ok, Some((300, &[address])))).expect("written");
        let expected = [19, 0x08, 2, 0x1a, 13, 0x08, 0xac, 0x02, 0x12, 8, 4, 1, 2, 3, 4, 6, 0, 5, 0x28, 100];
        assert_eq!(out, expected);
    }
}
