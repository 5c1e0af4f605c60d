package microsofttest

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"time"
)

// buildCab makes a scan cab in Microsoft's layout: index.xml, package.cab
// with the graph of revisions, and package2.cab with their fragments. It is
// stored, not compressed; readers must take both.
func buildCab(list []Update, at time.Time) []byte {
	var graph, locations bytes.Buffer
	fmt.Fprintf(&graph, `<?xml version="1.0" encoding="utf-8"?><OfflineSyncPackage xmlns="http://schemas.microsoft.com/msus/2004/02/OfflineSync" MinimumClientVersion="5.8.0.2678" ProtocolVersion="1.0" PackageId="%08x-0000-4000-8000-000000000000" SourceId="cc56dcba-9026-4399-8535-7a3c9bed7086" CreationDate="%s" PackageVersion="1.1"><Updates>`,
		uint32(at.Unix()), at.Format(time.RFC3339))
	revisions := map[string]int{}
	for i, u := range list {
		revisions[u.ID] = 2*i + 1001
	}
	superseded := map[string][]int{}
	for _, u := range list {
		for _, id := range u.Supersedes {
			superseded[id] = append(superseded[id], revisions[u.ID])
		}
	}
	var parts []member
	for _, u := range list {
		parts = append(parts, writeUpdate(&graph, u, revisions[u.ID], superseded[u.ID])...)
		for _, f := range u.Files {
			fmt.Fprintf(&locations, `<FileLocation Id="%s" Url="%s" />`, fileID(f), f.URL)
		}
	}
	fmt.Fprintf(&graph, `</Updates><FileLocations>%s</FileLocations></OfflineSyncPackage>`, locations.String())
	index := `<INDEX VERSION="1"><CABLIST XOR="0"><CAB NAME="package.cab" /><CAB NAME="package2.cab" RANGESTART="0" /></CABLIST></INDEX>`
	return cabinet(at, []member{
		{"index.xml", []byte(index)},
		{"package.cab", cabinet(at, []member{{"package.xml", graph.Bytes()}})},
		{"package2.cab", cabinet(at, parts)},
	})
}

// writeUpdate writes a bundle and its one leaf, which has the files, and
// returns their fragments: c/ relationships, l/en/ titles, x/ properties.
func writeUpdate(w *bytes.Buffer, u Update, rev int, supersededBy []int) []member {
	leaf := rev - 1
	created := u.Published.Format(time.RFC3339)
	fmt.Fprintf(w, `<Update CreationDate="%s" DefaultLanguage="en" UpdateId="%s" RevisionNumber="%d" RevisionId="%d" IsLeaf="true" DeploymentAction="Bundle"><PayloadFiles>`, created, leafID(u.ID), u.Revision, leaf)
	var files bytes.Buffer
	for _, f := range u.Files {
		fmt.Fprintf(w, `<File Id="%s" />`, fileID(f))
		sum, _ := hex.DecodeString(f.SHA256)
		fmt.Fprintf(&files, `<File Digest="%s" DigestAlgorithm="SHA1" FileName="%s" Size="%d" Modified="%s" PatchingType="SelfContained"><AdditionalDigest Algorithm="SHA256">%s</AdditionalDigest></File>`,
			fileID(f), f.Name, f.Size, created, base64.StdEncoding.EncodeToString(sum))
	}
	fmt.Fprintf(w, `</PayloadFiles><BundledBy><Revision Id="%d" /></BundledBy></Update>`, rev)
	fmt.Fprintf(w, `<Update CreationDate="%s" DefaultLanguage="en" UpdateId="%s" RevisionNumber="%d" RevisionId="%d" IsLeaf="true" IsBundle="true">`, created, u.ID, u.Revision, rev)
	if len(supersededBy) > 0 {
		w.WriteString("<SupersededBy>")
		for _, by := range supersededBy {
			fmt.Fprintf(w, `<Revision Id="%d" />`, by)
		}
		w.WriteString("</SupersededBy>")
	}
	fmt.Fprintf(w, `<Categories><Category Type="UpdateClassification" Id="%s" />`, u.Classification.ID)
	for _, p := range u.Products {
		fmt.Fprintf(w, `<Category Type="Product" Id="%s" />`, p.ID)
	}
	w.WriteString("</Categories></Update>")

	title := escape(u.Title)
	var cves bytes.Buffer
	for _, c := range u.CVEs {
		fmt.Fprintf(&cves, "<CveID>%s</CveID>", c)
	}
	return []member{
		{fmt.Sprintf(`c\%d`, rev), fmt.Appendf(nil, `<UpdateIdentity UpdateID="%s" RevisionNumber="%d" /><Properties UpdateType="Software" /><Relationships><BundledUpdates><UpdateIdentity UpdateID="%s" RevisionNumber="%d" /></BundledUpdates></Relationships>`, u.ID, u.Revision, leafID(u.ID), u.Revision)},
		{fmt.Sprintf(`l\en\%d`, rev), fmt.Appendf(nil, `<LocalizedProperties><Language>en</Language><Title>%s</Title><Description>Install this update to resolve issues in Windows.</Description></LocalizedProperties>`, title)},
		{fmt.Sprintf(`x\%d`, rev), fmt.Appendf(nil, `<ExtendedProperties MsrcSeverity="%s"><SupportUrl>https://support.microsoft.com/help/%s</SupportUrl><SecurityBulletinID /><KBArticleID>%s</KBArticleID>%s</ExtendedProperties>`, u.Severity, u.KB, u.KB, cves.String())},
		{fmt.Sprintf(`x\%d`, leaf), fmt.Appendf(nil, `<ExtendedProperties /><Files>%s</Files>`, files.String())},
	}
}

func leafID(id string) string { return "0" + id[1:] }

func fileID(f File) string {
	sum, _ := hex.DecodeString(f.SHA1)
	return base64.StdEncoding.EncodeToString(sum)
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

type member struct {
	name string
	data []byte
}

// cabinet writes one folder of stored data ([MS-CAB], section 2).
func cabinet(at time.Time, members []member) []byte {
	const block = 32 << 10
	le := binary.LittleEndian
	var data []byte
	var files bytes.Buffer
	date := uint16((at.Year()-1980)<<9 | int(at.Month())<<5 | at.Day())
	clock := uint16(at.Hour()<<11 | at.Minute()<<5 | at.Second()/2)
	for _, m := range members {
		e := le.AppendUint32(nil, uint32(len(m.data)))
		e = le.AppendUint32(e, uint32(len(data)))
		for _, v := range []uint16{0, date, clock, 0x20} {
			e = le.AppendUint16(e, v)
		}
		files.Write(append(append(e, m.name...), 0))
		data = append(data, m.data...)
	}
	blocks := (len(data) + block - 1) / block
	start := 36 + 8 + files.Len()
	b := append([]byte("MSCF"), 0, 0, 0, 0)
	b = le.AppendUint32(b, uint32(start+8*blocks+len(data)))
	b = append(le.AppendUint32(append(b, 0, 0, 0, 0), 44), 0, 0, 0, 0, 3, 1)
	for _, v := range []int{1, len(members), 0, 0, 0} {
		b = le.AppendUint16(b, uint16(v))
	}
	b = le.AppendUint32(b, uint32(start))
	b = le.AppendUint16(le.AppendUint16(b, uint16(blocks)), 0)
	b = append(b, files.Bytes()...)
	for ; len(data) > 0; data = data[min(block, len(data)):] {
		part := data[:min(block, len(data))]
		sizes := le.AppendUint16(le.AppendUint16(nil, uint16(len(part))), uint16(len(part)))
		b = le.AppendUint32(b, checksum(sizes, checksum(part, 0)))
		b = append(append(b, sizes...), part...)
	}
	return b
}

// checksum is CFDATA's: XOR of little-endian words, the last bytes the other
// way round ([MS-CAB], section 3.1).
func checksum(p []byte, sum uint32) uint32 {
	for ; len(p) >= 4; p = p[4:] {
		sum ^= binary.LittleEndian.Uint32(p)
	}
	rest := uint32(0)
	for _, c := range p {
		rest = rest<<8 | uint32(c)
	}
	return sum ^ rest
}
