"""The one stylesheet. Every rule is scoped by ``.flm1``, so displays of different versions do not meet.

Colours come from the notebook's own variables where it has them, with values for light and dark pages otherwise.
A display stays readable when a viewer removes all of this: facts are text, colour only repeats them.
"""

from __future__ import annotations

import functools

from fastllm.display.color import shades

__all__ = ["DARK", "LIGHT", "style_tag", "stylesheet", "wrap"]

# text, background, quiet text, lines, raised background, accent, alarm; the contrast of each with its ground is tested
LIGHT = {
    "fg": "#1f2328", "bg": "#ffffff", "dim": "#57606a", "line": "#d0d7de", "up": "#f6f8fa", "acc": "#0b5cad",
    "bad": "#b3141f", "bar": "#4a8fd6", "bar2": "#c9d9ea",
}  # fmt: skip
DARK = {
    "fg": "#e6e8eb", "bg": "#111418", "dim": "#a3adb8", "line": "#3a424b", "up": "#1b2026", "acc": "#7cb7f5",
    "bad": "#ff8d88", "bar": "#4a8fd6", "bar2": "#33475c",
}  # fmt: skip

_RULES = """
.flm1{color:var(--f-fg);background:var(--f-bg);font:14px/1.5 var(--jp-content-font-family,system-ui,sans-serif);
padding:2px 4px;position:relative}
.flm1 *{box-sizing:border-box}
.flm1 code,.flm1 .flm1-m,.flm1 td.n{font-family:var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace);
font-size:12.5px}
.flm1 .flm1-scroll{overflow-x:auto;max-width:100%}
.flm1 table.flm1-t{border-collapse:collapse;margin:4px 0;font-size:13px;background:none;color:inherit;width:auto}
.flm1 table.flm1-t caption{text-align:start;font-weight:600;padding:2px 0;color:var(--f-fg)}
.flm1 table.flm1-t th,.flm1 table.flm1-t td{padding:2px 8px;border:0;border-bottom:1px solid var(--f-line);
text-align:start;vertical-align:top;color:inherit;background:none;max-width:48em;overflow-wrap:anywhere}
.flm1 table.flm1-t th{font-weight:500;color:var(--f-dim)}
.flm1 table.flm1-t th[scope=col]{white-space:nowrap}
.flm1 table.flm1-t td.n{text-align:end;white-space:pre}
.flm1 .flm1-dim{color:var(--f-dim)}
.flm1 .flm1-bad{color:var(--f-bad);font-weight:600}
.flm1 .flm1-bad p{margin:0}
.flm1 summary{cursor:pointer;color:var(--f-acc);padding:1px 0}
.flm1 summary:focus-visible,.flm1 .flm1-k:focus-within{outline:2px solid var(--f-acc);outline-offset:1px;
border-radius:2px}
.flm1 .flm1-text,.flm1.flm1-text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-width:88ch;
font-size:15px;line-height:1.65;color:var(--f-fg)}
.flm1 .flm1-k{display:inline;position:static;border-radius:2px;margin:0;padding:1px 0;cursor:default;font-weight:400;
color:inherit;font-size:inherit;line-height:inherit}
.flm1 .flm1-k:hover{box-shadow:0 2px 0 var(--f-acc)}
.flm1 .flm1-k>input{display:inline!important;position:absolute;opacity:0;width:1px!important;height:1px;margin:0;
padding:0;pointer-events:none}
.flm1 .flm1-k:has(input:checked){box-shadow:0 2px 0 var(--f-acc)}
.flm1 .flm1-tips,.flm1.flm1-tips{padding-bottom:var(--f-tip,9.6em)}
.flm1 .flm1-hint,.flm1 .flm1-k:after{position:absolute;left:4px;right:4px;bottom:2px;
height:calc(var(--f-tip,9.6em) - 8px);
overflow:hidden;margin:0;padding:5px 9px;border:1px solid var(--f-line);border-radius:5px;background:var(--f-up);
font:12.5px/1.45 var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace);white-space:pre;color:var(--f-fg);
unicode-bidi:isolate;direction:ltr;text-align:left;pointer-events:none}
.flm1 .flm1-hint{color:var(--f-dim);white-space:normal}
.flm1 .flm1-k:after{display:none;content:attr(data-tip)}
.flm1 .flm1-k:has(input:checked):after{display:block;z-index:1}
.flm1 .flm1-k:focus-within:after{display:block;z-index:2}
.flm1 .flm1-k:hover:after{display:block;z-index:3}
.flm1 .flm1-sp{border:1px solid var(--f-dim);border-radius:4px;padding:0 3px;font-size:12px;color:var(--f-dim);
white-space:nowrap}
.flm1 mark{background:var(--f-s7);color:var(--f-on);border-radius:2px}
.flm1-list select{font-family:var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace)!important;
font-size:12.5px!important}
.flm1 .flm1-leg{display:flex;flex-wrap:wrap;gap:2px 4px;align-items:center;font-size:12px;color:var(--f-dim);
margin:2px 0}
.flm1 .flm1-leg i{font-style:normal;padding:0 5px;border-radius:2px;color:var(--f-fg)}
.flm1 .flm1-use{font-size:12.5px;color:var(--f-dim);margin:3px 0;font-variant-numeric:tabular-nums}
.flm1 .flm1-caret{display:inline-block;width:.5em;height:1.05em;background:var(--f-acc);vertical-align:-.15em;
animation:flm1-blink 1.1s steps(2) infinite}
@keyframes flm1-blink{50%{opacity:0}}
@media (prefers-reduced-motion:reduce){.flm1 .flm1-caret{animation:none}}
.flm1 .flm1-prog{height:8px;border-radius:4px;background:var(--f-bar2);overflow:hidden;max-width:40ch;margin:4px 0}
.flm1 .flm1-prog>div{height:100%;background:var(--f-bar)}
.flm1 .flm1-row{display:flex;flex-wrap:wrap;gap:8px 18px;align-items:flex-start}
.flm1 figure{margin:4px 0}
.flm1 figcaption{font-size:12px;color:var(--f-dim);max-width:60ch}
.flm1 img{image-rendering:pixelated;border:1px solid var(--f-line);max-width:100%;display:block}
.flm1 svg{display:block;max-width:100%}
.flm1 svg.i{display:inline-block}
.flm1 table.flm1-t td.flm1-bad{color:var(--f-bad)}
.flm1 svg text{fill:var(--f-fg);font:11px var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace)}
.flm1 svg .d{fill:var(--f-dim)}.flm1 svg .b{fill:var(--f-bar)}.flm1 svg .b2{fill:var(--f-bar2)}
.flm1 svg .l{stroke:var(--f-dim);stroke-width:1;fill:none}.flm1 svg .a{stroke:var(--f-acc);fill:none}
.flm1 .flm1-msg{border-inline-start:3px solid var(--f-line);padding:2px 10px;margin:6px 0}
.flm1 .flm1-msg.user{border-color:var(--f-acc)}
.flm1 .flm1-msg>b{font-size:12px;color:var(--f-dim);display:block}
.flm1-in,.flm1-in>.widget-html-content{display:inline!important;position:static!important;overflow:visible!important;
height:auto!important;width:auto!important;margin:0!important;padding:0!important;line-height:inherit!important;
font-size:inherit!important;white-space:inherit!important;color:inherit!important}
.flm1-blk,.flm1-blk>.widget-html-content{height:auto!important;line-height:1.5!important;overflow:visible!important;
width:auto!important;max-width:100%!important;margin:0!important}
.flm1-view{display:grid!important;grid-template-columns:1fr auto;gap:0 8px;overflow:visible!important}
.flm1-view>*{grid-column:1/-1;min-width:0}
.flm1-view>:nth-child(1){grid-column:1}.flm1-view>:nth-child(2){grid-column:2;width:7em}
.jp-OutputArea-child:has(.flm1-live)+.jp-OutputArea-child:has(.flm1-copy){display:none}
.jp-OutputArea-child:has(>.jupyter-widgets):not(:has(.flm1-live)):has(+.jp-OutputArea-child .flm1-copy)
{display:none}
.flm1-blkbox{display:block!important;overflow:visible!important;height:auto!important;width:auto!important}
"""


def _variables(colors: dict[str, str], *, dark: bool) -> str:
    own = {
        "fg": f"var(--jp-content-font-color0,var(--vscode-editor-foreground,{colors['fg']}))",
        "bg": f"var(--jp-layout-color0,var(--vscode-editor-background,{colors['bg']}))",
    }
    parts = [f"--f-{name}:{own.get(name, value)}" for name, value in colors.items()]
    parts += [f"--f-s{step}:{color}" for step, color in enumerate(shades(dark=dark)) if step]
    return ";".join([*parts, f"--f-on:{colors['fg']}", f"color-scheme:{'dark' if dark else 'light'}"])


@functools.cache
def stylesheet() -> str:
    """All rules."""
    light, dark = _variables(LIGHT, dark=False), _variables(DARK, dark=True)
    steps = "".join(f".flm1 .s{step}{{background:var(--f-s{step});color:var(--f-on)}}" for step in range(1, 10))
    is_light = '[data-jp-theme-light="true"] .flm1,.vscode-light .flm1,.theme-light .flm1'
    is_dark = '[data-jp-theme-light="false"] .flm1,.vscode-dark .flm1,.vscode-high-contrast .flm1,.theme-dark .flm1'
    return "".join(
        [
            f".flm1{{{light}}}@media (prefers-color-scheme:dark){{.flm1{{{dark}}}}}",
            f"{is_light}{{{light}}}{is_dark}{{{dark}}}",
            _RULES.replace("\n", ""),
            steps,
        ]
    )


def style_tag() -> str:
    """The stylesheet as an element."""
    return f"<style>{stylesheet()}</style>"


def wrap(body: str, *, label: str = "", style: bool = True) -> str:
    """A complete display.

    Args:
        body: HTML.
        label: What it is, for screen readers; escaped here.
        style: Whether to bring the stylesheet along.
    """
    from fastllm.display.escape import esc

    named = f' role="group" aria-label="{esc(label)}"' if label else ""
    return f'{style_tag() if style else ""}<div class="flm1"{named}>{body}</div>'
