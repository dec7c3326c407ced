use super::*;
use std::io::{Read, Write};
use std::thread;

use crate::wire::{HEADER_SIZE, Header, flags};

/// A server that answers VERSION properly and then plays `script`.
fn against(script: impl FnOnce(&mut UnixStream, Header) + Send + 'static) -> Client {
    let (near, mut far) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let header = take(&mut far);
        let json = caps::reply(0);
        answer(&mut far, header, 0, 0, &[wire::Version::default().as_bytes(), &json].concat());
        let header = take(&mut far);
        script(&mut far, header);
        // Whatever else the client says goes unanswered until it leaves.
        let _ = far.read_to_end(&mut Vec::new());
    });
    let options = ClientOptions { timeout: Duration::from_millis(200), ..Default::default() };
    Client::from_stream(near, options).unwrap()
}

fn take(socket: &mut UnixStream) -> Header {
    let mut head = [0; HEADER_SIZE];
    socket.read_exact(&mut head).unwrap();
    let header = Header::read_from_bytes(&head).unwrap();
    socket.read_exact(&mut vec![0; header.size as usize - HEADER_SIZE]).unwrap();
    header
}

fn answer(socket: &mut UnixStream, to: Header, flag: u32, errno: u32, body: &[u8]) {
    let size = (HEADER_SIZE + body.len()) as u32;
    let header = Header { size, flags: flags::TYPE_REPLY | flag, errno, ..to };
    socket.write_all(&[header.as_bytes(), body].concat()).unwrap();
}

#[test]
fn an_error_reply_is_an_error_and_the_connection_goes_on() {
    let mut client = against(|socket, header| {
        answer(socket, header, flags::ERROR, 22, &[]);
        let header = take(socket);
        answer(socket, header, 0, 0, &[]);
    });
    let refused = client.region_read(0, 0, &mut [0; 4]);
    assert!(matches!(refused, Err(ClientError::Refused { command: 9, errno: Errno::INVAL })));
    client.reset().unwrap();
}

#[test]
fn silence_ends_in_a_timeout_and_the_client_does_not_go_on() {
    let mut client = against(|_, _| ());
    assert!(matches!(client.reset(), Err(ClientError::Timeout(13))));
    assert!(matches!(client.reset(), Err(ClientError::OutOfStep)));
}

#[test]
fn a_server_that_leaves_is_noticed() {
    let mut client = against(|socket, _| socket.shutdown(std::net::Shutdown::Both).unwrap());
    assert!(matches!(client.reset(), Err(ClientError::Closed)));
}

#[test]
fn replies_to_something_else_and_impossible_sizes_are_protocol_errors() {
    let mut client =
        against(|socket, header| answer(socket, Header { id: header.id + 1, ..header }, 0, 0, &[]));
    assert!(matches!(client.reset(), Err(ClientError::Protocol(_))));
    let mut client = against(|socket, header| {
        let header = Header { size: u32::MAX, flags: flags::TYPE_REPLY, ..header };
        socket.write_all(header.as_bytes()).unwrap();
    });
    assert!(matches!(client.reset(), Err(ClientError::Protocol(_))));
}

#[test]
fn capabilities_that_loop_or_lie_are_refused() {
    let info = |cap_offset| wire::RegionInfo {
        flags: wire::VFIO_REGION_INFO_FLAG_CAPS,
        cap_offset,
        ..Default::default()
    };
    let mut reply = info(32).as_bytes().to_vec();
    reply.extend(wire::CapHeader { id: 1, version: 1, next: 32 }.as_bytes());
    reply.extend([1u32, 0].as_bytes());
    reply.extend([4096u64, 8192].as_bytes());
    assert!(matches!(sparse_areas(&info(32), &reply), Err(ClientError::Protocol(_))));
    reply[36..40].fill(0);
    assert_eq!(sparse_areas(&info(32), &reply).unwrap(), [(4096, 8192)]);
    reply[40] = 0xff;
    assert!(matches!(sparse_areas(&info(32), &reply), Err(ClientError::Protocol(_))));
    assert!(sparse_areas(&info(9999), &reply).is_err());
}
