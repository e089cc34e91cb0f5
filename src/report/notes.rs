//! Notes are Markdown that anybody may have written, models too: what comes out is harmless HTML.

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// A note as HTML: raw HTML in it is text, pictures are their descriptions, and links go to the web or nowhere.
pub(super) fn to_html(markdown: &str) -> String {
    let shown = super::view::visible(markdown);
    // Whether each link that is open is one that is kept.
    let mut kept: Vec<bool> = Vec::new();
    let events =
        Parser::new_ext(&shown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH).filter_map(
            |event| match event {
                Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
                Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                    let is_kept = is_harmless(&dest_url) && link_type != LinkType::Email;
                    kept.push(is_kept);
                    is_kept.then_some(Event::Start(Tag::Link { link_type, dest_url, title, id }))
                }
                Event::End(TagEnd::Link) => kept.pop().unwrap_or(false).then_some(Event::End(TagEnd::Link)),
                Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => None,
                // The page has headings of its own.
                Event::Start(Tag::Heading { .. }) => Some(Event::Start(Tag::Paragraph)),
                Event::End(TagEnd::Heading(_)) => Some(Event::End(TagEnd::Paragraph)),
                other => Some(other),
            },
        );
    let mut page = String::new();
    html::push_html(&mut page, events);
    page
}

/// Web addresses.
fn is_harmless(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    (scheme == "https" || scheme == "http") && url[scheme.len()..].starts_with("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_text() {
        let page = to_html("a <script>alert(1)</script> b\n\n<img src=x onerror=alert(1)>\n\n<div onclick='x'>c</div>");
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<div"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn links_go_to_the_web_or_nowhere() {
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "//evil.example",
            "vbscript:x",
            "&#106;avascript:x",
        ] {
            let page = to_html(&format!("[x]({bad}) <{bad}> ![y]({bad})"));
            assert!(!page.contains("href") && !page.contains("src="), "{bad}: {page}");
            assert!(page.contains('x'), "{bad}: {page}");
        }
        let page = to_html("[x](https://example.org/?a=1&b=2 \"t\") ![a picture](https://example.org/x.png)");
        assert!(page.contains(r#"<a href="https://example.org/?a=1&amp;b=2" title="t">x</a>"#), "{page}");
        assert!(!page.contains("<img") && page.contains("a picture"), "{page}");
    }

    #[test]
    fn the_rest_is_markdown() {
        assert_eq!(to_html("# A\n\n*b* `c`"), "<p>A</p>\n<p><em>b</em> <code>c</code></p>\n");
        assert!(to_html("a\u{1b}b").contains("\\u{1b}"));
    }
}
