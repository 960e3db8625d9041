<?php

/**
 * Template Name: Pricing
 *
 * The shop's products and their prices.
 */

declare(strict_types=1);

defined('ABSPATH') || exit;

get_header();
?>
<div class="wrapper" id="page-wrapper">
  <main class="container" id="main" data-pmp-page="pricing">
    <?php while (have_posts()) : ?>
        <?php the_post(); ?>
      <h1><?php the_title(); ?></h1>
        <?php the_content(); ?>
    <?php endwhile; ?>
    <?php get_template_part('parts/plans'); ?>
  </main>
</div>
<?php
get_footer();
