//! Topics: every one is built and taken apart, and nothing else is taken for one.

use proto::topic::*;

use crate::samples::name;

#[test]
fn every_topic_is_built_and_taken_apart() {
    let longest = name("abcdefghij-123456789");
    for device in [name("a"), name("u"), name("up"), longest] {
        let topic = presence(&device);
        assert_eq!((parse_presence(&topic), parse_up(&topic)), (Some(device), None));
        assert_eq!(parse_presence(&topic.replace("/up/presence", "/down/presence")), None);
        for word in Up::ALL {
            let topic = up(&device, *word);
            assert_eq!(parse_presence(&topic), None);
            assert_eq!(parse_up(&topic), Some((device, *word)));
            assert_eq!(parse_down(&topic), None);
            assert!(topic.starts_with(up_prefix(&device).as_str()));
        }
        for word in Down::ALL {
            let topic = down(&device, *word);
            assert_eq!(parse_down(&topic), Some((device, *word)));
            assert_eq!(parse_up(&topic), None);
        }
        for gateway in [name("u"), name("d"), longest] {
            for lane in (0..LANES_MAX).map(|number| Lane::new(number).unwrap()) {
                assert_eq!(parse_link_client(&link_client(&gateway, lane)), Some((gateway, lane)));
                for word in LinkUp::ALL.iter().copied() {
                    let topic = link_up(&device, &gateway, word, lane);
                    let parsed = LinkTopic {
                        site: device,
                        gateway,
                        word,
                        lane,
                    };
                    assert_eq!(parse_link_up(&topic), Some(parsed));
                    assert_eq!(parse_link_down(&topic), None);
                }
                for word in LinkDown::ALL.iter().copied() {
                    let topic = link_down(&device, &gateway, word, lane);
                    let parsed = LinkTopic {
                        site: device,
                        gateway,
                        word,
                        lane,
                    };
                    assert_eq!(parse_link_down(&topic), Some(parsed));
                    assert_eq!(parse_link_up(&topic), None);
                }
            }
        }
    }
    assert_eq!(
        link_down(&longest, &longest, LinkDown::Artifact, Lane::new(3).unwrap()).len(),
        59
    );
}

#[test]
fn the_topics_are_those_of_the_table() {
    let (device, site, gateway) = (name("charger-07"), name("north"), name("gw-01"));
    let second = Lane::new(1).unwrap();
    let rows = [
        (up(&device, Up::CommandAnswer), "dev/1/charger-07/up/answer"),
        (down(&device, Down::Grant), "dev/1/charger-07/down/grant"),
        (presence(&device), "dev/1/charger-07/up/presence"),
        (down_filter(&device), "dev/1/charger-07/down/+"),
        (up_prefix(&device), "dev/1/charger-07/up/"),
        (up_filter(), "dev/1/+/up/+"),
        (
            link_up(&site, &gateway, LinkUp::Records, Lane::FIRST),
            "hf/1/north/gw-01/u/records",
        ),
        (
            link_up(&site, &gateway, LinkUp::Records, second),
            "hf/1/north/gw-01/u/records/1",
        ),
        (
            link_down(&site, &gateway, LinkDown::Trouble, Lane::FIRST),
            "hf/1/north/gw-01/d/trouble",
        ),
        (link_down_filter(&site, &gateway, Lane::FIRST), "hf/1/north/gw-01/d/+"),
        (link_down_filter(&site, &gateway, second), "hf/1/north/gw-01/d/+/1"),
        (link_client(&gateway, Lane::FIRST), "gw-01"),
        (link_client(&gateway, second), "gw-01/1"),
        (link_up_filter(), "hf/1/+/+/u/#"),
    ];
    for (topic, expected) in rows {
        assert_eq!(topic.as_str(), expected);
    }
}

#[test]
fn what_is_no_topic_is_not_taken_for_one() {
    let long = format!("dev/1/{}/up/hello", "a".repeat(1_000_000));
    let texts = [
        "",
        "/",
        "dev",
        "dev/1",
        "dev/1/",
        "dev/1//up/hello",
        "dev/1/a/up",
        "dev/1/a/up/",
        "dev/1/a/up/hello/",
        "dev/1/a/up/hello/x",
        "dev/1/a/up/Hello",
        "dev/1/a/up/grant",
        "dev/1/a/down/hello",
        "dev/1/A/up/hello",
        "dev/1/a/b/up/hello",
        "dev/1/+/up/hello",
        "dev/1/a/up/+",
        "dev/1/a/up/#",
        "dev/2/a/up/hello",
        "dev/11/a/up/hello",
        "/dev/1/a/up/hello",
        "dev/1/abcdefghijklmnopqrstu/up/hello",
        "hf/1/s/g/u",
        "hf/1/s/g/u/",
        "hf/1/s/u/hello",
        "hf/1/s/g/x/u/hello",
        "hf/1//g/u/hello",
        "hf/1/s//u/hello",
        "hf/1/s/g/u/hello/",
        "hf/1/s/g/u/hello/0",
        "hf/1/s/g/u/hello/4",
        "hf/1/s/g/u/hello/+1",
        "hf/1/s/g/u/hello/01",
        "hf/1/s/g/u/hello/1/1",
        "hf/1/s/g/u/welcome",
        "hf/1/s/g/d/ask",
        "hf/1/+/g/u/hello",
        "hf/2/s/g/u/hello",
        long.as_str(),
    ];
    for text in texts {
        let shown = &text[..text.len().min(60)];
        assert_eq!(parse_up(text), None, "{shown}");
        assert_eq!(parse_down(text), None, "{shown}");
        assert_eq!(parse_link_up(text), None, "{shown}");
        assert_eq!(parse_link_down(text), None, "{shown}");
    }
}
