<?php

/**
 * Template Name: Landing
 *
 * Landing page of campaigns: the page's content, the free guide, and a link to the prices.
 */

declare(strict_types=1);

use PMP\Theme\LeadForm;

defined('ABSPATH') || exit;

get_header();
?>
<div class="wrapper" id="page-wrapper">
  <main class="container" id="main" data-pmp-page="landing">
    <?php while (have_posts()) : ?>
        <?php the_post(); ?>
      <h1><?php the_title(); ?></h1>
        <?php the_content(); ?>
    <?php endwhile; ?>
    <section id="guide">
      <?php LeadForm::print('landing'); ?>
    </section>
    <?php if ($pricing = get_page_by_path('pricing')) : ?>
      <p>
        <a class="btn btn-outline-primary" data-pmp-click="see-pricing" href="<?php echo esc_url((string) get_permalink($pricing)); ?>">
          <?php esc_html_e('See the prices', 'understrap-child'); ?>
        </a>
      </p>
    <?php endif; ?>
  </main>
</div>
<?php
get_footer();
