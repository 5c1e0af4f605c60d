package cabgen

// Tables behind the generated catalogue. GUIDs and names of categories are
// Microsoft's; everything else is invented.

type category struct{ guid, title string }

const microsoft = "56309036-4c77-4dd9-951a-99ee9c246a94" // the Company category

var classifications = []category{
	{"0fa1201d-4330-4fa8-8ae9-b877473b6441", "Security Updates"},
	{"e6cf1350-c01b-414d-a61f-263d14d133b4", "Critical Updates"},
	{"28bc880e-0592-4cbf-8f95-c79b17911d5f", "Update Rollups"},
	{"cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83", "Updates"},
	{"68c5b0a3-d1a6-4553-ae49-01d3a7827828", "Service Packs"},
	{"b54e7d24-7add-428f-8b75-90a396fa584f", "Feature Packs"},
	{"e0789628-ce08-4437-be74-2495b842f43b", "Definition Updates"},
	{"b4832bd8-e735-4761-8daf-37f882276dab", "Tools"},
	{"ebfc1fc5-71a4-4f7b-9aca-3b9a503104a0", "Drivers"},
	{"3689bdc8-b205-4af4-8d4a-a63924c5e9d5", "Upgrades"},
	{"5c9376ab-8ce6-464a-b136-22113dd69801", "Applications"},
	{"434de588-ed14-48f5-8eed-a15e09a991f6", "Connectors"},
	{"e140075d-8433-45c3-ad87-e72345b36078", "Developer Kits"},
	{"9511d615-35b2-47bb-927f-f73d8e9260bb", "Guidance"},
}

var families = map[string]category{
	"win": {"6964aab4-c5b5-43bd-a17d-ffb4346a8e1d", "Windows"},
	"ofc": {"477b856e-65c4-4473-b621-a8b230bb70d9", "Office"},
	"sql": {"0a4c6c73-8887-4d7f-9cbe-d08fa8fa9d1e", "SQL Server"},
	"dev": {"48ce8c86-6850-4f68-8e9d-7dc8535ced60", "Developer Tools, Runtimes, and Redistributables"},
}

// products, by key; the family is the key's prefix.
var products = map[string]category{
	"win-xp":     {"558f4bc3-4827-49e1-accf-ea79fd72d4c9", "Windows XP"},
	"win-2003":   {"dbf57a08-0d5a-46ff-b30c-7715eb9498e9", "Windows Server 2003"},
	"win-vista":  {"26997d30-08ce-4f25-b2de-699c36a8033a", "Windows Vista"},
	"win-2008":   {"ba0ae9cc-5f01-40b4-ac3f-50192b5d6aaf", "Windows Server 2008"},
	"win-7":      {"bfe5b177-a086-47a0-b102-097e4fa1f807", "Windows 7"},
	"win-2008r2": {"fdfe8200-9d98-44ba-a12a-772282bf60ef", "Windows Server 2008 R2"},
	"win-8":      {"2ee2ad83-828c-4405-9479-544d767993fc", "Windows 8"},
	"win-8.1":    {"6407468e-edc7-4ecd-8c32-521f64cee65e", "Windows 8.1"},
	"win-2012":   {"a105a108-7c9b-4518-bbbe-73f0fe30012b", "Windows Server 2012"},
	"win-2012r2": {"d31bd4c3-d872-41c9-a2e7-231f372588cb", "Windows Server 2012 R2"},
	"win-10":     {"a3c2375d-0c8a-42f9-bce0-28333e198407", "Windows 10"},
	"win-10ltsb": {"d2085b71-5f1f-43a9-880d-ed159016d5c6", "Windows 10 LTSB"},
	"win-1903":   {"b3c75dc1-155f-4be4-b015-3f1a91758e52", "Windows 10, version 1903 and later"},
	"win-11":     {"72e7624a-5b00-45d2-b92f-e561c0a6a160", "Windows 11"},
	"win-2016":   {"569e8e8f-c6cd-42c8-92a3-efbb20a0f6f5", "Windows Server 2016"},
	"win-2019":   {"f702a48c-919b-45d6-9aef-ca4248d50397", "Windows Server 2019"},
	"win-s1903":  {"21210d67-50bc-4254-a695-281765e10665", "Windows Server, version 1903 and later"},
	"win-21h2":   {"71718f13-7324-4b0f-8f9e-2ca9dc978e53", "Microsoft Server operating system-21H2"},
	"win-22h2":   {"2c7888b6-f9e9-4ee9-87af-a77705193893", "Microsoft Server operating system-22H2"},
	"win-24h2":   {"b256987d-4693-4c87-955d-dbb9341205eb", "Microsoft Server Operating System-24H2"},
	"ofc-2007":   {"041e4f9f-3a3d-4f58-8b2f-5e6fe95c4591", "Office 2007"},
	"ofc-2010":   {"84f5f325-30d7-41c4-81d1-87a0e6535b66", "Office 2010"},
	"ofc-2013":   {"704a0a4a-518f-4d69-9e03-10ba44198bd5", "Office 2013"},
	"ofc-2016":   {"25aed893-7c2d-4a31-ae22-28ff8ac150ed", "Office 2016"},
	"ofc-lync":   {"5e870422-bd8f-4fd2-96d3-9c5d9aafda22", "Microsoft Lync 2010"},
	"sql-2008r2": {"bb7bc3a7-857b-49d4-8879-b639cf5e8c3c", "SQL Server 2008 R2"},
	"sql-2012":   {"56750722-19b4-4449-a547-5b68f19eee38", "Microsoft SQL Server 2012"},
	"sql-2014":   {"caab596c-64f2-4aa9-bbe3-784c6e2ccf9c", "Microsoft SQL Server 2014"},
	"sql-2016":   {"93f0b0bc-9c20-4ca5-b630-06eb4706a447", "Microsoft SQL Server 2016"},
	"sql-2017":   {"ca6616aa-6310-4c2d-a6bf-cae700b85e86", "Microsoft SQL Server 2017"},
	"dev-2010":   {"c9834186-a976-472b-8384-6bb8f2aa43d9", "Visual Studio 2010"},
	"dev-2012":   {"abddd523-04f4-4f8e-b76f-a6c84286cc67", "Visual Studio 2012"},
	"dev-2013":   {"cf4aa0fc-119d-4408-bcba-181abb69ed33", "Visual Studio 2013"},
	"dev-2015":   {"1731f839-8830-4b9c-986e-82ee30b24120", "Visual Studio 2015"},
	"dev-sl":     {"9f3dd20a-1004-470e-ba65-3dc62d982958", "Silverlight"},
}

// variant is one architecture or version of a release: its own bundle.
type variant struct {
	title, arch string
	from, to    int // months, as ym(); 0 is open
}

// track is a line of releases. {ym}, {kb}, {v} (variant) and {c} (component)
// are filled into title and file.
type track struct {
	products   []string
	class      string // title of the classification
	from, to   int
	weight     int
	cumulative bool // once a month, supersedes its predecessors
	title      string
	components []string
	variants   []variant
	file       string
	handler    string // Cbs, OSInstaller, WindowsInstaller, CommandLineInstallation
	langs      int    // language specific files instead of one neutral file
	minKB      int    // size of a file, in KiB
	maxKB      int
}

// ym numbers months from January 2009.
func ym(y, m int) int { return (y-2009)*12 + m - 1 }

func archs(v string, archs ...string) (out []variant) {
	name := map[string]string{"x64": "x64-based", "x86": "x86-based", "arm64": "ARM64-based"}
	for _, a := range archs {
		out = append(out, variant{title: v + " for " + name[a] + " Systems", arch: a})
	}
	return out
}

func span(from, to int, vs []variant) []variant {
	for i := range vs {
		vs[i].from, vs[i].to = from, to
	}
	return vs
}

func join(vs ...[]variant) (out []variant) {
	for _, v := range vs {
		out = append(out, v...)
	}
	return out
}

var office = []string{"Word", "Excel", "PowerPoint", "Outlook", "Access", "Publisher", "Visio", "Project", "OneNote", "Office", "Skype for Business"}

var tracks = []track{
	{products: []string{"win-xp", "win-2003"}, class: "Security Updates", from: 0, to: ym(2014, 4), weight: 16,
		title: "Security Update for {v} ({kb})", variants: []variant{{title: "Windows XP", arch: "x86"}, {title: "Windows Server 2003", arch: "x86"}, {title: "Windows Server 2003 x64 Edition", arch: "x64"}},
		file: "windowsxp-{kb}-{arch}.exe", handler: "CommandLineInstallation", langs: 30, minKB: 300, maxKB: 6000},
	{products: []string{"win-vista", "win-2008"}, class: "Security Updates", from: 0, to: ym(2017, 4), weight: 8,
		title: "Security Update for {v} ({kb})", variants: join(archs("Windows Vista", "x86", "x64"), archs("Windows Server 2008", "x86", "x64")),
		file: "windows6.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 200, maxKB: 9000},
	{products: []string{"win-7", "win-2008r2"}, class: "Security Updates", from: ym(2009, 10), to: ym(2016, 9), weight: 12,
		title: "Security Update for {v} ({kb})", variants: join(archs("Windows 7", "x86", "x64"), []variant{{title: "Windows Server 2008 R2 x64 Edition", arch: "x64"}}),
		file: "windows6.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 200, maxKB: 12000},
	{products: []string{"win-8", "win-2012"}, class: "Security Updates", from: ym(2012, 10), to: ym(2016, 9), weight: 7,
		title: "Security Update for {v} ({kb})", variants: join(archs("Windows 8", "x86", "x64"), []variant{{title: "Windows Server 2012", arch: "x64"}}),
		file: "windows8-rt-{kb}-{arch}.cab", handler: "Cbs", minKB: 200, maxKB: 15000},
	{products: []string{"win-8.1", "win-2012r2"}, class: "Security Updates", from: ym(2013, 10), to: ym(2016, 9), weight: 8,
		title: "Security Update for {v} ({kb})", variants: join(archs("Windows 8.1", "x86", "x64"), []variant{{title: "Windows Server 2012 R2", arch: "x64"}}),
		file: "windows8.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 200, maxKB: 20000},
	{products: []string{"win-7", "win-2008r2"}, class: "Security Updates", from: ym(2010, 1), to: ym(2016, 9), weight: 3, cumulative: true,
		title: "Cumulative Security Update for Internet Explorer {c} for {v} ({kb})", components: []string{"8", "9", "11"}, variants: archs("Windows 7", "x86", "x64"),
		file: "ie{c}-windows6.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 8000, maxKB: 60000},
	{products: []string{"win-7", "win-2008r2"}, class: "Security Updates", from: ym(2016, 10), to: ym(2020, 1), weight: 4, cumulative: true,
		title: "{ym} Security Monthly Quality Rollup for {v} ({kb})", variants: join(archs("Windows 7", "x86", "x64"), archs("Windows Server 2008 R2", "x64")),
		file: "windows6.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 90000, maxKB: 400000},
	{products: []string{"win-8.1", "win-2012r2"}, class: "Security Updates", from: ym(2016, 10), weight: 4, cumulative: true,
		title: "{ym} Security Monthly Quality Rollup for {v} ({kb})", variants: join(span(0, ym(2023, 1), archs("Windows 8.1", "x86", "x64")), archs("Windows Server 2012 R2", "x64")),
		file: "windows8.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 150000, maxKB: 600000},
	{products: []string{"win-8.1", "win-2012r2"}, class: "Security Updates", from: ym(2016, 10), weight: 3,
		title: "{ym} Security Only Quality Update for {v} ({kb})", variants: archs("Windows Server 2012 R2", "x64"),
		file: "windows8.1-{kb}-{arch}.cab", handler: "Cbs", minKB: 20000, maxKB: 60000},
	{products: []string{"win-10"}, class: "Security Updates", from: ym(2015, 8), to: ym(2020, 12), weight: 5, cumulative: true,
		title: "{ym} Cumulative Update for {v} ({kb})", variants: join(archs("Windows 10", "x86", "x64"), span(ym(2016, 8), 0, archs("Windows 10 Version 1607", "x86", "x64")), span(ym(2018, 11), 0, archs("Windows 10 Version 1809", "x86", "x64", "arm64"))),
		file: "windows10.0-{kb}-{arch}.cab", handler: "CbsExpress", minKB: 200000, maxKB: 900000},
	{products: []string{"win-1903"}, class: "Security Updates", from: ym(2019, 6), weight: 5, cumulative: true,
		title: "{ym} Cumulative Update for {v} ({kb})", variants: join(span(0, ym(2020, 12), archs("Windows 10 Version 1903", "x86", "x64", "arm64")), span(ym(2020, 6), ym(2022, 5), archs("Windows 10 Version 21H2", "x86", "x64", "arm64")), span(ym(2022, 11), 0, archs("Windows 10 Version 22H2", "x86", "x64", "arm64"))),
		file: "windows10.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 200000, maxKB: 900000},
	{products: []string{"win-11"}, class: "Security Updates", from: ym(2021, 10), weight: 6, cumulative: true,
		title: "{ym} Cumulative Update for {v} ({kb})", variants: join(archs("Windows 11 Version 23H2", "x64", "arm64"), span(ym(2024, 10), 0, archs("Windows 11 Version 24H2", "x64", "arm64"))),
		file: "windows11.0-{kb}-{arch}.cab", handler: "OSInstaller", minKB: 300000, maxKB: 1400000},
	{products: []string{"win-2016", "win-10"}, class: "Security Updates", from: ym(2016, 10), weight: 4, cumulative: true,
		title: "{ym} Cumulative Update for Windows Server 2016 for {v} ({kb})", variants: []variant{{title: "x64-based Systems", arch: "x64"}},
		file: "windows10.0-{kb}-{arch}.cab", handler: "CbsExpress", minKB: 900000, maxKB: 1900000},
	{products: []string{"win-2016"}, class: "Security Updates", from: ym(2017, 1), weight: 3, cumulative: true,
		title: "{ym} Servicing Stack Update for Windows Server 2016 for {v} ({kb})", variants: []variant{{title: "x64-based Systems", arch: "x64"}},
		file: "windows10.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 9000, maxKB: 13000},
	{products: []string{"win-2019"}, class: "Security Updates", from: ym(2018, 11), weight: 4, cumulative: true,
		title: "{ym} Cumulative Update for Windows Server 2019 ({c}) for {v} ({kb})", components: []string{"1809"}, variants: []variant{{title: "x64-based Systems", arch: "x64"}},
		file: "windows10.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 400000, maxKB: 700000},
	{products: []string{"win-21h2"}, class: "Security Updates", from: ym(2021, 9), weight: 4, cumulative: true,
		title: "{ym} Cumulative Update for Microsoft server operating system version 21H2 for {v} ({kb})", variants: []variant{{title: "x64-based Systems", arch: "x64"}},
		file: "windows10.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 300000, maxKB: 500000},
	{products: []string{"win-24h2"}, class: "Security Updates", from: ym(2024, 10), weight: 4, cumulative: true,
		title: "{ym} Cumulative Update for Microsoft server operating system version 24H2 for {v} ({kb})", variants: []variant{{title: "x64-based Systems", arch: "x64"}},
		file: "windows11.0-{kb}-{arch}.cab", handler: "OSInstaller", minKB: 700000, maxKB: 2500000},
	{products: []string{"win-1903", "win-11"}, class: "Security Updates", from: ym(2019, 6), weight: 4, cumulative: true,
		title: "{ym} Cumulative Update for .NET Framework 3.5, 4.8 & 4.8.1 for {v} ({kb})", variants: join(archs("Windows 10 Version 22H2", "x86", "x64"), span(ym(2021, 10), 0, archs("Windows 11", "x64", "arm64"))),
		file: "windows10.0-{kb}-{arch}-ndp481.cab", handler: "Cbs", minKB: 50000, maxKB: 100000},
	{products: []string{"win-2012r2", "win-2016", "win-2019"}, class: "Update Rollups", from: ym(2017, 5), weight: 3, cumulative: true,
		title: "{ym} Security and Quality Rollup for .NET Framework 3.5, 4.6.2, 4.7.2, 4.8 for {v} ({kb})", variants: []variant{{title: "Windows Server 2012 R2 for x64", arch: "x64"}, {title: "Windows Server 2016 for x64", arch: "x64"}, {title: "Windows Server 2019 for x64", arch: "x64"}},
		file: "windows8.1-{kb}-{arch}-ndp48.cab", handler: "Cbs", minKB: 40000, maxKB: 90000},
	{products: []string{"win-7", "win-8.1", "win-10", "win-11", "win-2016", "win-2019"}, class: "Update Rollups", from: ym(2009, 6), weight: 2, cumulative: true,
		title: "Windows Malicious Software Removal Tool {v} - {ym} ({kb})", variants: []variant{{title: "x64", arch: "x64"}, {title: "x86", arch: "x86"}},
		file: "windows-{kb}-{arch}-v5.exe", handler: "CommandLineInstallation", minKB: 30000, maxKB: 75000},
	{products: []string{"win-7"}, class: "Service Packs", from: ym(2011, 2), to: ym(2011, 4), weight: 1,
		title: "{v} Service Pack 1 ({kb})", variants: []variant{{title: "Windows 7", arch: "x86"}, {title: "Windows 7 for x64-based Systems", arch: "x64"}},
		file: "windows6.1-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 500000, maxKB: 900000},
	{products: []string{"ofc-2007"}, class: "Security Updates", from: 0, to: ym(2017, 10), weight: 14, components: office,
		title: "Security Update for Microsoft {c} 2007 ({kb})", variants: []variant{{title: "2007", arch: "x86"}},
		file: "{c}-{kb}-fullfile-{arch}.cab", handler: "WindowsInstaller", langs: 30, minKB: 800, maxKB: 20000},
	{products: []string{"ofc-2010"}, class: "Security Updates", from: ym(2010, 7), to: ym(2020, 10), weight: 16, components: office,
		title: "Security Update for Microsoft {c} 2010 ({kb}) {v}", variants: []variant{{title: "32-Bit Edition", arch: "x86"}, {title: "64-Bit Edition", arch: "x64"}},
		file: "{c}2010-{kb}-fullfile-{arch}-glb.cab", handler: "WindowsInstaller", langs: 30, minKB: 800, maxKB: 30000},
	{products: []string{"ofc-2013"}, class: "Security Updates", from: ym(2013, 2), to: ym(2023, 4), weight: 9, components: office,
		title: "Security Update for Microsoft {c} 2013 ({kb}) {v}", variants: []variant{{title: "32-Bit Edition", arch: "x86"}, {title: "64-Bit Edition", arch: "x64"}},
		file: "{c}2013-{kb}-fullfile-{arch}-glb.cab", handler: "WindowsInstaller", langs: 10, minKB: 800, maxKB: 40000},
	{products: []string{"ofc-2016"}, class: "Security Updates", from: ym(2015, 11), weight: 9, components: office,
		title: "Security Update for Microsoft {c} 2016 ({kb}) {v}", variants: []variant{{title: "32-Bit Edition", arch: "x86"}, {title: "64-Bit Edition", arch: "x64"}},
		file: "{c}2016-{kb}-fullfile-{arch}-glb.cab", handler: "WindowsInstaller", minKB: 800, maxKB: 60000},
	{products: []string{"ofc-2016"}, class: "Critical Updates", from: ym(2015, 11), weight: 4, components: office,
		title: "Update for Microsoft {c} 2016 ({kb}) {v}", variants: []variant{{title: "32-Bit Edition", arch: "x86"}, {title: "64-Bit Edition", arch: "x64"}},
		file: "{c}2016-{kb}-fullfile-{arch}-glb.cab", handler: "WindowsInstaller", minKB: 800, maxKB: 60000},
	{products: []string{"ofc-lync"}, class: "Security Updates", from: ym(2011, 1), to: ym(2018, 1), weight: 1,
		title: "Security Update for Microsoft Lync 2010 ({kb}) {v}", variants: []variant{{title: "(x86)", arch: "x86"}, {title: "(x64)", arch: "x64"}},
		file: "lync-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 20000, maxKB: 50000},
	{products: []string{"sql-2008r2", "sql-2012"}, class: "Security Updates", from: ym(2010, 7), to: ym(2022, 7), weight: 3, components: []string{"2008 R2", "2012"},
		title: "Security Update for SQL Server {c} Service Pack 3 ({kb})", variants: []variant{{title: "x86", arch: "x86"}, {title: "x64", arch: "x64"}},
		file: "sqlserver-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 100000, maxKB: 900000},
	{products: []string{"sql-2014", "sql-2016", "sql-2017"}, class: "Security Updates", from: ym(2015, 1), weight: 3, components: []string{"2014", "2016", "2017", "2019", "2022"},
		title: "Security Update for SQL Server {c} RTM GDR ({kb})", variants: []variant{{title: "x64", arch: "x64"}},
		file: "sqlserver-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 200000, maxKB: 900000},
	{products: []string{"dev-2010", "dev-2012", "dev-2013", "dev-2015"}, class: "Security Updates", from: ym(2010, 6), to: ym(2021, 6), weight: 3, components: []string{"2010", "2012", "2013", "2015"},
		title: "Security Update for Microsoft Visual Studio {c} ({kb})", variants: []variant{{title: "x86", arch: "x86"}},
		file: "vs{c}-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 1000, maxKB: 90000},
	{products: []string{"dev-sl"}, class: "Security Updates", from: ym(2010, 1), to: ym(2021, 6), weight: 1, cumulative: true,
		title: "Security Update for Microsoft Silverlight® ({kb})", variants: []variant{{title: "x86", arch: "x86"}},
		file: "silverlight-{kb}-{arch}.exe", handler: "CommandLineInstallation", minKB: 6000, maxKB: 13000},
	{products: []string{"win-10", "win-1903", "win-11"}, class: "Updates", from: ym(2018, 4), weight: 3,
		title: "{ym} Update for {v} ({kb})", variants: join(archs("Windows 10 Version 1809", "x64"), archs("Windows 11 Version 23H2", "x64")),
		file: "windows10.0-{kb}-{arch}.cab", handler: "Cbs", minKB: 300, maxKB: 4000},
}

var languages = []string{"en", "de", "fr", "es", "it", "ja", "ko", "nl", "pl", "pt-br", "pt", "ru", "sv", "zh-cn", "zh-tw", "cs", "da", "fi", "hu", "no", "tr", "ar", "he", "el", "bg", "et", "hr", "lt", "lv", "ro", "sk", "sl", "sr", "th", "uk", "zh-hk"}
