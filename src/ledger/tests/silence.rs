//! Connections whose other end has vanished without a word, as after a fail-over.

use std::net::SocketAddr;

use futures_util::future::{join_all, pending};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

use super::*;
use crate::ledger::LedgerError;
use crate::ledger::trial;
use crate::shutdown::Tasks;

/// A way to PostgreSQL.
struct Way {
    address: SocketAddr,
    /// How many connections, of those that came first, aren't answered any more.
    silent: watch::Sender<usize>,
    _tasks: Tasks,
}

impl Way {
    async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks, silent) = (listener.local_addr().unwrap(), Tasks::new(), watch::Sender::new(0));
        let (carrying, hushed) = (tasks.clone(), silent.clone());
        tasks.short_lived("test", async move {
            for number in 1.. {
                let Ok((near, _)) = listener.accept().await else { return };
                carrying.short_lived("test", carry(near, upstream, number, hushed.subscribe()));
            }
        });
        Self { address, silent, _tasks: tasks }
    }
}

/// Carries a connection, in a silence of its own from when it is told so.
async fn carry(near: TcpStream, upstream: SocketAddr, number: usize, silent: watch::Receiver<usize>) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = TcpStream::connect(upstream).await.unwrap().into_split();
    let questions = async {
        let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
    };
    let answers = async {
        let mut chunk = vec![0; 4096];
        while let Ok(length @ 1..) = from_far.read(&mut chunk).await {
            if *silent.borrow() >= number {
                pending::<()>().await;
            }
            if to_near.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(questions, answers);
}

#[rstest]
#[case::plain(false)]
#[case::in_a_transaction(true)]
#[tokio::test]
async fn connections_into_silence_that_were_given_up_make_room_for_those_that_are_answered(
    #[case] in_transaction: bool,
) {
    let mut url = Url::parse(&trial::url()).unwrap();
    let way = Way::to(url.socket_addrs(|| Some(5432)).unwrap()[0]).await;
    url.set_ip_host(way.address.ip()).unwrap();
    url.set_port(Some(way.address.port())).unwrap();
    let ledger = Ledger::lazy(&SecretString::from(url.to_string()), Duration::from_millis(100)).unwrap();
    let (plain, reading) = if in_transaction {
        (Vec::new(), join_all((0..10).map(|_| ledger.begin_reading())).await)
    } else {
        (join_all((0..10).map(|_| ledger.read.acquire())).await, Vec::new())
    };
    way.silent.send_replace(10);
    let ask = "SELECT 1";
    let plain = plain.into_iter().map(|connection| async {
        let mut connection = connection.unwrap();
        Ok(sqlx::query(ask).execute(&mut *connection).await?)
    });
    let reading = reading.into_iter().map(|tx| async {
        let mut tx = tx.unwrap();
        Ok(sqlx::query(ask).execute(&mut *tx).await?)
    });
    let given_up = join_all(plain.map(|call| ledger.in_time(call))).await;
    let given_up = given_up.into_iter().chain(join_all(reading.map(|call| ledger.in_time(call))).await);
    for given_up in given_up {
        assert!(matches!(given_up, Err(LedgerError::Silent { .. })), "{given_up:?}");
    }
    // As long as a call waits for a connection, and no longer.
    sqlx::query("SELECT 1").execute(&ledger.write).await.expect("there should be room in the pool");
}
