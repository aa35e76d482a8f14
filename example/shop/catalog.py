"""What the shop sells: plain data, known without a database."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One article of the catalogue, with its price in cents."""

    sku: str
    name: str
    price_cents: int


ARTICLES = tuple(
    Article(sku=sku, name=name, price_cents=price_cents)
    for sku, name, price_cents in (
        ("TEA-001", "Sencha, 100 g", 890),
        ("TEA-002", "Darjeeling first flush, 100 g", 1450),
        ("TEA-003", "Rooibos & vanilla, 200 g", 640),
        ("TEA-004", "Earl Grey, 100 g", 720),
        ("POT-001", "Teapot, cast iron, 0.8 l", 5900),
        ("POT-002", "Teapot, glass, 1.2 l", 3490),
        ("POT-003", "Travel pot with two cups", 4250),
        ("CUP-001", "Cup, stoneware, blue", 1290),
        ("CUP-002", "Cup, stoneware, sand", 1290),
        ("CUP-003", "Double-walled glass, pair", 1990),
        ("CUP-004", "Matcha bowl", 3150),
        ("KIT-001", "Strainer, steel", 990),
        ("KIT-002", "Timer, three glasses of sand", 1840),
        ("KIT-003", "Bamboo whisk", 1390),
        ("KIT-004", "Kettle, 40-100 °C", 8900),
        ("KIT-005", 'Tray 12" × 8"', 2460),
        ("BIS-001", "Shortbread, 150 g", 490),
        ("BIS-002", "Almond biscuits, 200 g", 580),
        ("BIS-003", "Ginger thins, 175 g", 520),
        ("BOX-001", "Tin for 250 g <airtight>", 1120),
        ("BOX-002", "Gift box, small", 350),
        ("BOX-003", "Gift box, large", 590),
        ("SET-001", "Starter set", 7900),
        ("SET-002", "Tasting set, 12 teas", 2990),
    )
)
