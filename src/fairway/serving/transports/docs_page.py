"""The page that shows the API for people, without anything from elsewhere."""

DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fairway API</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f6f8fa;padding:.8rem;overflow:auto;border-radius:6px}
b.get{color:#0a6640}b.post{color:#0b57a4}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}details{border-color:#30363d}
b.get{color:#56d364}b.post{color:#79c0ff}a{color:#79c0ff}}
</style></head><body><h1>Fairway API</h1>
<p id="about">Described in <a href="openapi.json">openapi.json</a>.</p><main id="paths"></main>
<h2>Schemas</h2><div id="schemas"></div>
<script>
const make=(tag,text,parent,cls)=>{const e=document.createElement(tag);if(text!==undefined)e.textContent=text;
if(cls)e.className=cls;if(parent)parent.append(e);return e};
const pretty=o=>JSON.stringify(o,null,2);
fetch('openapi.json').then(r=>r.json()).then(api=>{
make('p',api.info.description+' Version '+api.info.version+'.',document.getElementById('about'));
for(const[path,methods]of Object.entries(api.paths))for(const[method,op]of Object.entries(methods)){
const d=make('details',undefined,document.getElementById('paths')),s=make('summary',undefined,d);
make('b',method.toUpperCase()+' ',s,method);make('code',path,s);make('span',' — '+op.summary,s);
if(op.requestBody){make('p','Request body',d);make('pre',pretty(op.requestBody.content),d)}
if(op.parameters.length){make('p','Parameters',d);make('pre',pretty(op.parameters),d)}
const t=make('table',undefined,d);for(const[code,r]of Object.entries(op.responses)){const row=make('tr',undefined,t);
make('th',code,row);make('td',r.description,row)}}
for(const[name,schema]of Object.entries(api.components.schemas)){const d=make('details',undefined,
document.getElementById('schemas'));make('summary',name,d);make('pre',pretty(schema),d)}});
</script></body></html>
"""
