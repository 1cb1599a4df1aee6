//! DNS messages made by hand (RFC 1035, RFC 6891): a question, and an answer as long as the
//! questioner takes by UDP.

/// DNS's port.
pub const PORT: u16 = 53;
/// The longest answer that the question allows, in bytes.
const LONGEST: u16 = 4_096;

/// `text.example.`, in labels.
const NAME: &[u8] = b"\x04text\x07example\x00";
/// The name of the question, by its offset in the message (RFC 1035, section 4.1.4).
const SAME_NAME: [u8; 2] = [0xc0, 12];
/// `TXT`, class `IN`.
const TEXT: [u8; 4] = [0, 16, 0, 1];

/// Asks for the text of a name.
pub fn question(id: u16) -> Vec<u8> {
    const RECURSION_DESIRED: [u8; 2] = [1, 0];
    let mut message = header(id, RECURSION_DESIRED, 0);
    message.extend([NAME, &TEXT].concat());
    message.extend(options());
    message
}

/// The answer to the question with this identifier: 15 records of different texts, 4,061 bytes.
pub fn answer(id: u16) -> Vec<u8> {
    const RESPONSE: [u8; 2] = [0x81, 0x80];
    const RECORDS: u8 = 15;
    const MINUTE: [u8; 4] = [0, 0, 0, 60];
    const TEXT_LEN: u8 = 255;
    let mut message = header(id, RESPONSE, RECORDS);
    message.extend([NAME, &TEXT].concat());
    for record in 0..RECORDS {
        message.extend(SAME_NAME);
        message.extend(TEXT);
        message.extend(MINUTE);
        // The text, and the byte with its length.
        message.extend((u16::from(TEXT_LEN) + 1).to_be_bytes());
        message.push(TEXT_LEN);
        message.extend((0..TEXT_LEN).map(|byte| byte.wrapping_mul(167).wrapping_add(record)));
    }
    message.extend(options());
    message
}

/// One question, and options as the one additional record.
fn header(id: u16, flags: [u8; 2], answers: u8) -> Vec<u8> {
    [
        id.to_be_bytes(),
        flags,
        [0, 1],
        [0, answers],
        [0, 0],
        [0, 1],
    ]
    .concat()
}

/// The record that says how long a message may be.
fn options() -> Vec<u8> {
    const ROOT: u8 = 0;
    const OPT: [u8; 2] = [0, 41];
    const NO_FLAGS_NO_DATA: [u8; 6] = [0; 6];
    [&[ROOT], &OPT[..], &LONGEST.to_be_bytes(), &NO_FLAGS_NO_DATA].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_longer_than_a_packet_and_no_longer_than_allowed() {
        let answer = answer(1);
        assert_eq!(answer.len(), 4_061);
        assert!(answer.len() <= usize::from(LONGEST));
    }

    #[test]
    fn an_answer_repeats_identifier_and_question() {
        let (question, answer) = (question(0x1234), answer(0x1234));
        assert_eq!(question[..2], answer[..2]);
        let end = 12 + NAME.len() + TEXT.len();
        assert_eq!(question[12..end], answer[12..end]);
    }
}
