//! An answer's body that ends its request's record, and gives back what the request held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use portolan_mcp::failure::{Failure, Kind};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::budget::Answer;
use crate::limit::Place;
use crate::outlier::Fault;
use crate::pod::PodCall;
use crate::record::Record;
use crate::relay;
use crate::respond::{Body, BoxError};
use crate::sleep::UnderWay;
use crate::traffic::Watched;

/// What a request holds until its answer has ended.
#[derive(Default)]
pub(crate) struct Held {
    /// That it is one of the process's requests.
    pub(crate) entered: Option<Place>,
    /// What its answer takes of its server's budget.
    pub(crate) answer: Option<Answer>,
    /// Its place among the route's parallel requests.
    pub(crate) place: Option<Place>,
    /// That somebody calls a server that has no pods while nobody does.
    pub(crate) under_way: Option<UnderWay>,
    /// That it counts at its pod.
    pub(crate) pod: Option<PodCall>,
    /// That how it goes is compared.
    pub(crate) watched: Option<Watched>,
    /// That the process waits for it before it ends; not for a stream.
    pub(crate) call: Option<TaskTrackerToken>,
}

impl Held {
    /// Notes at the pod that an answer that had begun ended in `kind`.
    pub(crate) fn broke(&mut self, kind: Kind, record: &Record) {
        if let (Some(call), Some(caller)) = (&mut self.pod, record.caller()) {
            call.broke(kind, caller);
        }
        match &mut self.watched {
            Some(watched) if Fault::Answered(kind).is_of_the_pod() => watched.failed(),
            Some(watched) => watched.is_nobodys_fault(),
            None => {}
        }
    }
}

/// Ties `record` and `held` to the end of the answer's body.
pub(crate) fn tie(response: Response<Body>, record: Record, held: Held) -> Response<Body> {
    response.map(|inner| RecordedBody { inner, record, held }.boxed_unsync())
}

struct RecordedBody {
    inner: Body,
    record: Record,
    held: Held,
}

impl RecordedBody {
    /// The whole answer was handed over.
    fn complete(&mut self) {
        self.record.complete();
        if !self.record.is_ok() {
            return;
        }
        if let Some(call) = &mut self.held.pod {
            call.answered();
        }
        if let Some(watched) = &mut self.held.watched {
            watched.answered();
        }
    }

    /// The next part of the answer is handed over.
    fn passed(&mut self, part: Option<&Bytes>) {
        let Some(part) = part else { return };
        self.record.add_bytes_out(part.len());
        if let Some(watched) = &mut self.held.watched {
            watched.look_at(part);
        }
    }

    /// The bridge says behind an answer that it made the end of it in the server's stead.
    fn failed(&mut self, kind: Kind) {
        self.record.set_failure(kind);
        self.held.broke(kind, &self.record);
    }

    /// The answer broke off: at the pod, or at a bound here that is not the pod's fault.
    fn broken(&mut self, error: &BoxError) {
        self.record.broken();
        if let Some(failure) = error.downcast_ref::<Failure>() {
            self.held.broke(failure.kind, &self.record);
        }
    }
}

impl HttpBody for RecordedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(answer) = &this.held.answer {
            ready!(answer.poll_room(cx));
        }
        let mut frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            match relay::failure_of(trailers) {
                Some(kind) => this.failed(kind),
                None => this.complete(),
            }
            // They are the last of a body, and between the bridge and us.
            return Poll::Ready(None);
        }
        match &frame {
            Some(Ok(frame)) => this.passed(frame.data_ref()),
            Some(Err(error)) => this.broken(error),
            None => this.complete(),
        }
        if let Some(answer) = &this.held.answer {
            let is_last = this.inner.is_end_stream();
            frame = frame.map(|frame| frame.map(|frame| frame.map_data(|data| answer.part(data, is_last))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // A body of known length is not asked again after its last byte.
        if self.inner.is_end_stream() {
            self.complete();
        }
    }
}
