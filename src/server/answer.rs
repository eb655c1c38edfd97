//! An answer on its way out: it keeps its request's place until the transport has sent, or dropped, its last byte.
//!
//! A caller that takes nothing of its answers could otherwise pile them up, in plaintext. The transport keeps whatever
//! it was given until the caller has room for it, so the place goes with the bytes, not with the body; and since the
//! transport does not ask the body meanwhile, it is the connection that ends when nothing is taken for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as _;

use crate::identity::Peer;
use crate::patience::Progress;
use crate::share::{Load, Place};

/// Bytes that the transport gets at once, as many as an HTTP/2 frame has.
const PIECE: usize = 16 << 10;

/// What an answer keeps until its end.
pub(crate) struct Kept {
    _place: Place,
    load: Option<Load>,
    progress: Arc<Progress>,
}

/// The same body, which keeps the place, and the load where it has one. When the caller takes nothing of it for
/// `patience`, its connection is broken.
pub(crate) fn keeping(body: Body, place: Place, load: Option<Load>, peer: &Peer, patience: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let progress = Arc::default();
    peer.answers().watch(&progress, patience);
    let kept = Arc::new(Kept { _place: place, load, progress });
    Body::new(Answer { body, kept, rest: Bytes::new() })
}

struct Answer {
    body: Body,
    kept: Arc<Kept>,
    /// What the transport did not get yet of the last frame.
    rest: Bytes,
}

/// Some bytes of an answer.
struct Piece {
    bytes: Bytes,
    kept: Arc<Kept>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.kept.progress.done();
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, kept, rest } = self.get_mut();
        if rest.is_empty() {
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(load) = &kept.load {
                            load.take_answer(data.len());
                        }
                        *rest = data;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let bytes = rest.split_to(rest.len().min(PIECE));
        kept.progress.given();
        let piece = Piece { bytes, kept: Arc::clone(kept) };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use strongroom_access::{Principal, Role};
    use strongroom_ids::TenantNo;
    use tonic::service::AxumBody;

    use super::*;
    use crate::share::{Bounds, Shares, Work};
    use crate::testing::Authority;

    const LONG: Duration = Duration::from_secs(3_600);

    struct House {
        shares: Shares,
        principal: Principal,
        peer: Peer,
    }

    impl House {
        fn new() -> Self {
            let shares = Shares::new(Bounds { calls: 1, streams: 0, bytes: 4 << 20 });
            let peer = Peer::alone(Authority::new().client(&[]).certificate.der(), String::new());
            Self { shares, principal: Principal::new(TenantNo(1), Role::App, "a"), peer }
        }

        fn answer(&self, bytes: usize, patience: Duration) -> Body {
            let place = self.place().unwrap();
            let load = place.load();
            let body = Body::new(AxumBody::from(vec![7_u8; bytes]));
            keeping(body, place, Some(load), &self.peer, patience)
        }

        fn place(&self) -> Result<Place, Status> {
            self.shares.place(&self.principal, Work::Call)
        }
    }

    async fn next(body: &mut Body) -> Option<Bytes> {
        poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?.unwrap().into_data().ok()
    }

    #[tokio::test]
    async fn an_answer_keeps_its_place_until_its_last_byte_is_gone() {
        let house = House::new();
        let mut body = house.answer(3 * PIECE + 5, LONG);
        let mut pieces = vec![];
        while let Some(piece) = next(&mut body).await {
            assert!(piece.len() <= PIECE);
            pieces.push(piece);
        }
        assert_eq!(pieces.concat(), vec![7; 3 * PIECE + 5]);
        // The transport drops a body that has ended, and still has to send.
        drop(body);
        let last = pieces.pop().unwrap();
        drop(pieces);
        assert!(house.place().is_err());
        drop(last);
        assert!(house.place().is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_gives_its_place_back() {
        let house = House::new();
        let body = house.answer(5, LONG);
        assert!(house.place().is_err());
        drop(body);
        assert!(house.place().is_ok());
    }

    #[tokio::test]
    async fn an_answer_without_a_body_keeps_nothing() {
        let house = House::new();
        let place = house.place().unwrap();
        let body = keeping(Body::empty(), place, None, &house.peer, LONG);
        assert!(body.is_end_stream());
        assert!(house.place().is_ok());
    }

    #[tokio::test]
    async fn the_bytes_of_an_answer_count() {
        let shares = Shares::new(Bounds { calls: 8, streams: 0, bytes: 4_000 });
        let principal = Principal::new(TenantNo(1), Role::App, "a");
        let peer = House::new().peer;
        let (place, other) =
            (shares.place(&principal, Work::Call).unwrap(), shares.place(&principal, Work::Call).unwrap());
        let load = place.load();
        let mut body = keeping(Body::new(AxumBody::from(vec![0; 990])), place, Some(load), &peer, LONG);
        let piece = next(&mut body).await.unwrap();
        drop(body);
        assert!(other.load().take(11).is_err());
        drop(piece);
        assert!(other.load().take(1_000).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_is_taken_breaks_the_connection() {
        let house = House::new();
        let patience = Duration::from_secs(60);
        let mut body = house.answer(3 * PIECE, patience);
        let mut held = next(&mut body).await;
        // Taken slowly is taken: a piece at a time.
        for _ in 0..2 {
            let broken = tokio::time::timeout(patience - Duration::from_secs(1), house.peer.answers().broken()).await;
            assert!(broken.is_err());
            held.replace(next(&mut body).await.unwrap());
        }
        tokio::time::timeout(3 * patience, house.peer.answers().broken()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_give_may_take_its_time() {
        let house = House::new();
        let patience = Duration::from_secs(60);
        let quiet = Body::new(AxumBody::from_stream(futures_util::stream::pending::<Result<Bytes, Status>>()));
        let body = keeping(quiet, house.place().unwrap(), None, &house.peer, patience);
        assert!(tokio::time::timeout(10 * patience, house.peer.answers().broken()).await.is_err());
        drop(body);
    }
}
