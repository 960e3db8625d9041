<?php

/**
 * The shop's products side by side, each with a button to buy it.
 */

declare(strict_types=1);

use PMP\Theme\Scripts;

defined('ABSPATH') || exit;

$products = function_exists('wc_get_products')
    ? wc_get_products(['status' => 'publish', 'limit' => 3, 'orderby' => 'menu_order', 'order' => 'ASC'])
    : [];
?>
<div class="card-deck">
  <?php foreach ($products as $product) : ?>
    <div class="card text-center">
      <div class="card-body d-flex flex-column">
        <h2 class="card-title"><?php echo esc_html($product->get_name()); ?></h2>
        <p class="card-text h4"><?php echo wp_kses_post($product->get_price_html()); ?></p>
        <p class="card-text"><?php echo wp_kses_post($product->get_short_description()); ?></p>
        <a class="btn btn-primary mt-auto align-self-center" rel="nofollow" data-pmp-click="buy"
          data-pmp-product-id="<?php echo esc_attr((string) $product->get_id()); ?>"
          href="<?php echo esc_url(add_query_arg('add-to-cart', $product->get_id(), wc_get_checkout_url())); ?>">
          <?php esc_html_e('Enrol now', 'understrap-child'); ?>
        </a>
      </div>
    </div>
  <?php endforeach; ?>
</div>
<?php
$ids = array_map(static fn (object $product): string => (string) $product->get_id(), $products);
Scripts::push('view_pricing', ['product_ids' => $ids]);
