//! What a caller sends, looked at while it arrives: how long a message will be, and how many parts it has.
//!
//! Two bytes of a message can become an item of more than a hundred bytes in memory, and a message's announced length
//! is reserved before its bytes are there. Both are bounded here, before the decoder sees anything.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use strongroom_vault::{Error, Limits};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::errors::{self, Refusal};
use crate::share::Load;

/// The longest message, either way: 16 MiB of values, and what frames and names them.
pub(crate) const MESSAGE_BYTES: usize = 20 << 20;

/// The most fields that a message has at its top level: an item each, and a few.
const FIELDS: usize = Limits::MOST.items + 16;

/// How long the rest of a call's message may keep away. A call has a place from its headers on.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(10);

/// The same body, which ends with a status where it goes beyond a bound, or when nothing comes for `patience`. Each
/// message counts against `load`.
pub(crate) fn guarded(body: Body, load: Option<Load>, patience: Option<Duration>) -> Body {
    Body::new(Guarded { body, scan: Scan::default(), load, patience, waiting: None })
}

struct Guarded {
    body: Body,
    scan: Scan,
    load: Option<Load>,
    patience: Option<Duration>,
    /// Runs while the body is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, scan, load, patience, waiting } = self.get_mut();
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
                let Some(patience) = *patience else { return Poll::Pending };
                let sleep = waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                return sleep.as_mut().poll(context).map(|()| Some(Err(stalled(patience))));
            };
            let Some(frame) = frame else { return None.into() };
            let data = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => data,
                // Trailers mean nothing in a request.
                Ok(Err(_)) => continue,
                Err(status) => return Some(Err(status)).into(),
            };
            // A frame without a byte brings nothing.
            if data.is_empty() {
                continue;
            }
            *waiting = None;
            let admitted =
                scan.read(&data).and_then(|announced| load.as_ref().map_or(Ok(()), |load| load.take(announced)));
            return Some(admitted.map(|()| Frame::data(data))).into();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn stalled(patience: Duration) -> Status {
    let message = format!("nothing of the request came for {} s; nothing was stored: try again", patience.as_secs());
    Refusal::new(Code::DeadlineExceeded, "REQUEST_STALLED", message).into()
}

/// Where the scan of a stream of length-prefixed messages stands.
#[derive(Default)]
struct Scan {
    place: Place,
    /// Bytes of the message that are still to come.
    left: u32,
    /// Top-level fields of the message so far.
    fields: usize,
}

#[derive(Clone, Copy)]
enum Place {
    /// In the prefix: a flag and four bytes of length, of which `seen` were read.
    Prefix { seen: u8, length: u32 },
    /// In the tag of a field.
    Tag(Varint),
    /// In a value that is a varint.
    Value(Varint),
    /// In the length of a field.
    Length(Varint),
    /// In bytes that are passed over.
    Skip(u64),
    /// In what the decoder will refuse: the rest of the message is passed over.
    Rest,
}

impl Default for Place {
    fn default() -> Self {
        Self::Prefix { seen: 0, length: 0 }
    }
}

#[derive(Clone, Copy, Default)]
struct Varint {
    bits: u64,
    shift: u32,
}

impl Varint {
    /// Takes one byte. `Ok(Some(n))`: that was the last. `Err`: there are more than ten.
    fn take(&mut self, byte: u8) -> Result<Option<u64>, ()> {
        if self.shift >= 70 {
            return Err(());
        }
        self.bits |= u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.bits))
    }
}

impl Scan {
    /// Reads on. Answers how many bytes the messages that begin here announce.
    fn read(&mut self, data: &Bytes) -> Result<u32, Status> {
        let mut announced = 0_u32;
        let mut rest = &data[..];
        while let Some((&byte, after)) = rest.split_first() {
            if let Place::Prefix { seen, length } = self.place {
                rest = after;
                // The first of the five bytes is the flag.
                let length = if seen == 0 { 0 } else { length << 8 | u32::from(byte) };
                self.place = Place::Prefix { seen: seen + 1, length };
                if seen == 4 {
                    self.begin(length)?;
                    announced = announced.saturating_add(length);
                }
                continue;
            }
            let taken = match self.place {
                Place::Skip(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                Place::Rest => usize::MAX,
                _ => 1,
            };
            let taken = taken.min(rest.len()).min(self.left as usize);
            rest = &rest[taken..];
            self.step(byte, taken as u64)?;
            self.left -= taken as u32;
            if self.left == 0 {
                self.place = Place::default();
            }
        }
        Ok(announced)
    }

    fn begin(&mut self, length: u32) -> Result<(), Status> {
        if length as usize > MESSAGE_BYTES {
            let message = format!(
                "the message has {length} bytes and at most {MESSAGE_BYTES} are taken: send fewer items at once"
            );
            return Err(Refusal::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message).into());
        }
        self.fields = 0;
        self.left = length;
        self.place = if length == 0 { Place::default() } else { Place::Tag(Varint::default()) };
        Ok(())
    }

    /// Takes `taken` bytes of a message, of which `byte` is the first.
    fn step(&mut self, byte: u8, taken: u64) -> Result<(), Status> {
        let tag = Place::Tag(Varint::default());
        self.place = match self.place {
            Place::Tag(mut number) => match number.take(byte) {
                Ok(None) => Place::Tag(number),
                Ok(Some(bits)) => {
                    self.fields += 1;
                    if self.fields > FIELDS {
                        let description = format!("a call has at most {} items", Limits::MOST.items);
                        return Err(errors::status(Error::invalid("items", "too_many", description)));
                    }
                    match bits & 7 {
                        0 => Place::Value(Varint::default()),
                        1 => Place::Skip(8),
                        2 => Place::Length(Varint::default()),
                        // The beginning and the end of a group have no value of their own.
                        3 | 4 => tag,
                        5 => Place::Skip(4),
                        _ => Place::Rest,
                    }
                }
                Err(()) => Place::Rest,
            },
            Place::Value(mut number) => match number.take(byte) {
                Ok(None) => Place::Value(number),
                Ok(Some(_)) => tag,
                Err(()) => Place::Rest,
            },
            Place::Length(mut number) => match number.take(byte) {
                Ok(None) => Place::Length(number),
                Ok(Some(0)) => tag,
                Ok(Some(bytes)) => Place::Skip(bytes),
                Err(()) => Place::Rest,
            },
            Place::Skip(bytes) if bytes > taken => Place::Skip(bytes - taken),
            Place::Skip(_) => tag,
            place @ (Place::Rest | Place::Prefix { .. }) => place,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;
    use strongroom_access::{Principal, Role};
    use strongroom_ids::TenantNo;
    use strongroom_proto::codec::Codec;
    use strongroom_proto::v1::{TokenizeRequest, TokenizeResponse};
    use tonic::Streaming;
    use tonic::codec::Codec as _;
    use tonic::service::AxumBody;
    use tonic_types::StatusExt;

    use super::*;
    use crate::share::{Bounds, Shares, Work};

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        frame
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    /// Empty items, two bytes each.
    fn empty_items(count: usize) -> Vec<u8> {
        framed(&[0x0a, 0].repeat(count))
    }

    #[test]
    fn as_many_items_as_a_call_has_are_read() {
        let mut scan = Scan::default();
        for _ in 0..3 {
            assert!(scan.read(&empty_items(Limits::MOST.items).into()).is_ok());
        }
    }

    #[test]
    fn more_items_than_a_call_has_are_refused_before_they_are_decoded() {
        let status = Scan::default().read(&empty_items(FIELDS + 1).into()).unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "ITEMS_INVALID"));
    }

    #[test]
    fn a_message_too_long_is_refused_at_its_prefix() {
        let prefix = [&[0][..], &(MESSAGE_BYTES as u32 + 1).to_be_bytes()].concat();
        let status = Scan::default().read(&prefix.into()).unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
        let longest = [&[0][..], &(MESSAGE_BYTES as u32).to_be_bytes()].concat();
        assert_eq!(Scan::default().read(&longest.into()).unwrap(), MESSAGE_BYTES as u32);
    }

    /// What a service would get of a request that comes in these pieces.
    async fn received(pieces: Vec<Vec<u8>>, load: Option<Load>) -> Result<Option<TokenizeRequest>, Status> {
        let pieces = stream::iter(pieces.into_iter().map(|piece| Ok::<_, Status>(Bytes::from(piece))));
        let body = guarded(Body::new(AxumBody::from_stream(pieces)), load, None);
        let decoder = Codec::<TokenizeResponse, TokenizeRequest>::default().decoder();
        Streaming::new_request(decoder, body, None, Some(MESSAGE_BYTES)).message().await
    }

    #[tokio::test]
    async fn what_is_within_bounds_arrives_as_it_was_sent() {
        let message = empty_items(100);
        let pieces = message.chunks(7).map(<[u8]>::to_vec).collect();
        let request = received(pieces, None).await.unwrap().unwrap();
        assert_eq!(request.items.len(), 100);
        assert!(received(vec![], None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_reason_on_the_way_to_the_caller() {
        let status = received(vec![empty_items(FIELDS + 1)], None).await.err().unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "ITEMS_INVALID"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "items");
        let shares = Shares::new(Bounds { calls: 1, streams: 0, bytes: 40 });
        let app = Principal::new(TenantNo(1), Role::App, "a");
        let full = shares.place(&app, Work::Call).unwrap().load();
        let status = received(vec![empty_items(6)], Some(full)).await.err().unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "OVERLOADED"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_keeps_away_is_given_up() {
        let patience = Duration::from_secs(10);
        let slow = |gap: Duration, pieces: usize| {
            let pieces = stream::unfold(0, move |sent| async move {
                if sent == pieces {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(gap).await;
                // Frames without a byte don't count.
                let piece = if sent % 2 == 0 { vec![] } else { vec![0] };
                Some((Ok::<_, Status>(Bytes::from(piece)), sent + 1))
            });
            let body = guarded(Body::new(AxumBody::from_stream(pieces)), None, Some(patience));
            let decoder = Codec::<TokenizeResponse, TokenizeRequest>::default().decoder();
            Streaming::new_request(decoder, body, None, Some(MESSAGE_BYTES))
        };
        // The fifth byte, the last of the prefix, completes an empty message.
        assert!(slow(patience / 3, 10).message().await.unwrap().is_some());
        for mut stalls in [slow(patience / 3, 8), slow(patience, 10), slow(patience / 3, 0)] {
            let status = stalls.message().await.err().unwrap();
            assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "REQUEST_STALLED"));
        }
    }

    /// A field of any wire type, with its number of top-level tags.
    fn field() -> impl Strategy<Value = (Vec<u8>, usize)> {
        prop_oneof![
            any::<u64>().prop_map(|value| {
                let mut bytes = vec![0x10];
                prost_varint(value, &mut bytes);
                (bytes, 1)
            }),
            any::<[u8; 8]>().prop_map(|value| ([&[0x11][..], &value].concat(), 1)),
            any::<[u8; 4]>().prop_map(|value| ([&[0x15][..], &value].concat(), 1)),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|value| {
                let mut bytes = vec![0x82, 0x01];
                prost_varint(value.len() as u64, &mut bytes);
                bytes.extend_from_slice(&value);
                (bytes, 1)
            }),
        ]
    }

    fn prost_varint(mut value: u64, into: &mut Vec<u8>) {
        while value >= 0x80 {
            into.push(value as u8 | 0x80);
            value >>= 7;
        }
        into.push(value as u8);
    }

    proptest! {
        #[test]
        fn fields_are_counted_however_the_bytes_are_cut(
            fields in prop::collection::vec(field(), 0..20),
            cut in 1_usize..40,
        ) {
            let message: Vec<u8> = fields.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let mut scan = Scan::default();
            let mut announced = 0;
            for piece in framed(&message).chunks(cut) {
                announced += scan.read(&Bytes::copy_from_slice(piece)).unwrap();
            }
            prop_assert_eq!(announced as usize, message.len());
            prop_assert_eq!(scan.fields, fields.len());
            let at_a_prefix = matches!(scan.place, Place::Prefix { seen: 0, length: 0 });
            prop_assert!(at_a_prefix);
        }

        #[test]
        fn no_bytes_panic_and_the_scan_stays_in_step(
            first in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1_usize..40,
        ) {
            let mut scan = Scan::default();
            let bytes = [framed(&first), framed(&[0x0a, 0])].concat();
            for piece in bytes.chunks(cut) {
                scan.read(&Bytes::copy_from_slice(piece)).unwrap();
            }
            prop_assert_eq!(scan.fields, 1);
        }
    }
}
