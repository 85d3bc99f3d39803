"""HTML of what the demo's page repeats: tables, decisions, pictures."""

from __future__ import annotations

from html import escape

from edge_ad.evaluation.tables import Table


def html_table(table: Table) -> str:
    """A :class:`Table` as HTML with its title and notes."""

    def row(cells: tuple[str, ...], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{decision(c)}</{tag}>" for c in cells) + "</tr>"

    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    body = "".join(row(r) for r in table.rows)
    foot = f"<tfoot>{''.join(row(r) for r in table.footer)}</tfoot>" if table.footer else ""
    notes = "".join(f'<p class="note">{escape(n)}</p>' for n in table.notes)
    head = row(table.columns, "th")
    return f'{title}<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody>{foot}</table></div>{notes}'


def decision(cell: str) -> str:
    if cell in ("anomalous", "normal", "invalid"):
        return f'<span class="tag {cell}">{cell}</span>'
    return escape(cell)


def figure(source: str, caption: str) -> str:
    return (
        f'<figure><a href="{escape(source)}"><img loading="lazy" src="{escape(source)}" alt=""></a>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
