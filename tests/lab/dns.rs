//! A DNS question, and an answer as long as the client accepts over UDP (RFC 6891).

use anyhow::Result;
use simple_dns::{
    CLASS, CharacterString, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE,
    rdata::{OPT, RData, TXT},
};

/// The port of DNS.
pub const PORT: u16 = 53;
/// The longest answer that the client accepts, in bytes.
const LONGEST: u16 = 4_096;

/// A question for the TXT records of a name.
///
/// # Errors
/// If the message cannot be encoded.
pub fn question(id: u16) -> Result<Vec<u8>> {
    let mut message = Packet::new_query(id);
    message.set_flags(PacketFlag::RECURSION_DESIRED);
    encode(message)
}

/// The answer to the question with this identifier: 15 records of different texts, 4,061 bytes.
///
/// # Errors
/// If the message cannot be encoded.
pub fn answer(id: u16) -> Result<Vec<u8>> {
    const RECORDS: u8 = 15;
    const MINUTE: u32 = 60;
    let mut message = Packet::new_reply(id);
    message.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    for record in 0..RECORDS {
        let text: Vec<_> = (0..255u8)
            .map(|byte| byte.wrapping_mul(167).wrapping_add(record))
            .collect();
        let text = TXT::new().with_char_string(CharacterString::new(&text)?.into_owned());
        let record = ResourceRecord::new(name()?, CLASS::IN, MINUTE, RData::TXT(text));
        message.answers.push(record);
    }
    encode(message)
}

fn name() -> Result<Name<'static>> {
    Ok(Name::new("text.example")?)
}

/// Adds what a question and its answer share.
fn encode(mut message: Packet<'_>) -> Result<Vec<u8>> {
    let question = Question::new(name()?, TYPE::TXT.into(), CLASS::IN.into(), false);
    message.questions.push(question);
    *message.opt_mut() = Some(OPT {
        opt_codes: Vec::new(),
        udp_packet_size: LONGEST,
        version: 0,
    });
    Ok(message.build_bytes_vec_compressed()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_longer_than_a_packet_and_no_longer_than_allowed() -> Result<()> {
        let answer = answer(1)?;
        assert_eq!(answer.len(), 4_061);
        assert!(answer.len() <= usize::from(LONGEST));
        Ok(())
    }
}
