package schedule

import (
	"strings"
	"time"
	"unicode/utf8"
)

// ICalendar writes firings as RFC 5545 has them, for calendars that subscribe to it.
func ICalendar(events []Event) []byte {
	var b strings.Builder
	line := func(name, value string) { fold(&b, name+":"+value) }
	line("BEGIN", "VCALENDAR")
	line("VERSION", "2.0")
	line("PRODID", "-//Quash//Schedules//EN")
	line("CALSCALE", "GREGORIAN")
	for _, e := range events {
		at := e.AtTime()
		line("BEGIN", "VEVENT")
		// Of the same firing it is the same, however often it is asked for.
		line("UID", escape(e.Schedule.ID+"-"+time.UnixMilli(e.Due).UTC().Format("20060102T150405.000Z")+"@schedules.quash"))
		line("DTSTAMP", utc(time.UnixMilli(e.Schedule.CreatedAt)))
		line("DTSTART", utc(at))
		line("DTEND", utc(at))
		line("SUMMARY", escape("Rotate "+e.Schedule.Rotate+" ("+e.Schedule.Name+")"))
		about := append([]string{e.Does, "Reason: " + e.Schedule.Reason}, e.Why...)
		if e.Assumed {
			about = append(about, "Assumed: it depends on when the one before was done.")
		}
		line("DESCRIPTION", escape(strings.Join(about, "\n")))
		line("CATEGORIES", "ROTATION")
		line("TRANSP", "TRANSPARENT")
		line("END", "VEVENT")
	}
	line("END", "VCALENDAR")
	return []byte(b.String())
}

// utc is RFC 5545, 3.3.5, form 2: seconds, of which the begun one counts.
func utc(t time.Time) string { return t.UTC().Format("20060102T150405Z") }

// escape is RFC 5545, 3.3.11. Of control characters a text has none but the new line.
func escape(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, strings.ReplaceAll(text, "\r\n", "\n"))
	return strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\n", `\n`).Replace(text)
}

// maxLine is how many bytes a line may have, without its end; RFC 5545, 3.1.
const maxLine = 75

// fold writes a line in as many as it takes; none ends within a character.
func fold(b *strings.Builder, text string) {
	for limit := maxLine; len(text) > limit; limit = maxLine - 1 { // the space counts
		n := limit
		for !utf8.RuneStart(text[n]) {
			n--
		}
		b.WriteString(text[:n])
		b.WriteString("\r\n ")
		text = text[n:]
	}
	b.WriteString(text)
	b.WriteString("\r\n")
}
