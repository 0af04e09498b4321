//! One body for several queues: where destinations have different wire formats, each format has a queue of its own.
//!
//! What came is handed to all of them, and answered once all have answered. It was kept if each of them kept it: if one
//! did not, the sender has to come again, and those that did recognise the repeat. The body itself is shared.

use super::{Delivery, Export, Outcome, Receipt};
use tokio::sync::{mpsc, oneshot};

/// Bodies waiting to be handed out. Those who take them have channels of their own, which bound what is under way.
const WAITING_MAX: usize = 1;

/// Something that is to be answered.
pub trait Answered: Send + Sync + Sized + 'static {
    /// The answer.
    type Answer: Send;

    /// The same once more, answered elsewhere.
    fn again(&self, reply: oneshot::Sender<Self::Answer>) -> Self;

    /// Where the answer goes.
    fn reply(self) -> oneshot::Sender<Self::Answer>;

    /// What several answers come to; `None` if one is missing.
    fn sum(answers: Vec<Option<Self::Answer>>) -> Option<Self::Answer>;
}

impl Answered for Delivery {
    type Answer = Receipt;

    fn again(&self, reply: oneshot::Sender<Receipt>) -> Self {
        Self { body: self.body.clone(), received_unix_nanos: self.received_unix_nanos, reply }
    }

    fn reply(self) -> oneshot::Sender<Receipt> {
        self.reply
    }

    fn sum(answers: Vec<Option<Receipt>>) -> Option<Receipt> {
        let answers: Option<Vec<Receipt>> = answers.into_iter().collect();
        // What one of them did not keep is not kept, and what is new to one of them is new.
        answers?.into_iter().max_by_key(|receipt| match receipt {
            Receipt::Repeated => 0,
            Receipt::Unreadable => 1,
            Receipt::Kept => 2,
            Receipt::Full => 3,
        })
    }
}

impl Answered for Export {
    type Answer = Outcome;

    fn again(&self, reply: oneshot::Sender<Outcome>) -> Self {
        Self {
            signal: self.signal,
            media: self.media,
            gzip: self.gzip,
            body: self.body.clone(),
            received_unix_nanos: self.received_unix_nanos,
            reply,
        }
    }

    fn reply(self) -> oneshot::Sender<Outcome> {
        self.reply
    }

    fn sum(answers: Vec<Option<Outcome>>) -> Option<Outcome> {
        let answers: Option<Vec<Outcome>> = answers.into_iter().collect();
        answers?.into_iter().max_by_key(|outcome| match outcome {
            Outcome::Kept => 0,
            Outcome::Refused(_) | Outcome::TooLong(_) => 1,
            Outcome::Full => 2,
        })
    }
}

/// Where to put what all of `takers` are to get. With one of them that is the taker itself; `None` with none.
pub fn fan_out<T: Answered>(mut takers: Vec<mpsc::Sender<T>>) -> Option<mpsc::Sender<T>> {
    if takers.len() < 2 {
        return takers.pop();
    }
    let (inbox, bodies) = mpsc::channel(WAITING_MAX);
    tokio::spawn(hand_out(bodies, takers));
    Some(inbox)
}

async fn hand_out<T: Answered>(mut bodies: mpsc::Receiver<T>, takers: Vec<mpsc::Sender<T>>) {
    while let Some(body) = bodies.recv().await {
        let mut answers = Vec::with_capacity(takers.len());
        // One after another: they share a disk, so that where one does not get on the others do not either.
        for taker in &takers {
            let (reply, answer) = oneshot::channel();
            // If it is gone, so is the reply, and the answer is missing.
            let _gone = taker.send(body.again(reply)).await.err();
            answers.push(answer);
        }
        let reply = body.reply();
        // The next body need not wait for the answers.
        tokio::spawn(async move {
            let mut found = Vec::with_capacity(answers.len());
            for answer in answers {
                found.push(answer.await.ok());
            }
            if let Some(sum) = T::sum(found) {
                // Whoever asked may have given up waiting.
                let _unwanted = reply.send(sum).err();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// What is answered to a delivery whose takers answer so; `None` stands for one that is gone in the middle of it.
    async fn answered(receipts: &[Option<Receipt>]) -> Option<Receipt> {
        let mut takers = Vec::new();
        for receipt in receipts.iter().copied() {
            let (taker, mut inbox) = mpsc::channel::<Delivery>(1);
            takers.push(taker);
            tokio::spawn(async move {
                let delivery = inbox.recv().await.unwrap();
                assert_eq!(&delivery.body[..], b"body");
                if let Some(receipt) = receipt {
                    delivery.reply.send(receipt).unwrap();
                }
            });
        }
        let inbox = fan_out(takers).unwrap();
        let (reply, answer) = oneshot::channel();
        let delivery = Delivery { body: Bytes::from_static(b"body"), received_unix_nanos: 1, reply };
        inbox.send(delivery).await.unwrap();
        answer.await.ok()
    }

    #[tokio::test]
    async fn a_delivery_is_kept_once_every_queue_has_kept_it() {
        use Receipt::{Full, Kept, Repeated, Unreadable};
        for (receipts, answer) in [
            ([Kept, Kept], Kept),
            ([Kept, Repeated], Kept),
            ([Repeated, Repeated], Repeated),
            ([Kept, Full], Full),
            ([Full, Repeated], Full),
            ([Unreadable, Unreadable], Unreadable),
        ] {
            assert_eq!(answered(&receipts.map(Some)).await, Some(answer), "{receipts:?}");
        }
        assert_eq!(answered(&[Some(Kept), None]).await, None, "one that is gone kept nothing");
        assert_eq!(answered(&[Some(Kept)]).await, Some(Kept));
        assert!(fan_out::<Delivery>(Vec::new()).is_none());
    }

    #[test]
    fn an_export_is_kept_once_every_queue_has_kept_it() {
        let refused = || Some(Outcome::Refused("no".to_owned()));
        assert_eq!(Export::sum(vec![Some(Outcome::Kept), Some(Outcome::Kept)]), Some(Outcome::Kept));
        assert_eq!(Export::sum(vec![Some(Outcome::Full), Some(Outcome::Kept)]), Some(Outcome::Full));
        assert_eq!(Export::sum(vec![refused(), refused()]), refused());
        assert_eq!(Export::sum(vec![Some(Outcome::Kept), None]), None);
    }
}
